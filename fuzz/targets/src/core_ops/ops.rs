//! What can happen.

use mcp_broker::broker::{Disconnect, Policy};
use mcp_proto::ActionName;

use super::task::Asks;
use super::world::{CLIENTS, WORKERS, World};
use crate::input::Input;

impl World {
    /// A byte says what happens, the next ones to whom.
    pub(super) fn apply(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let variant = op >> 5;
        let who = input.byte();
        let (client, worker) = (usize::from(who) % CLIENTS, usize::from(who) % WORKERS);
        let which = who >> 2;
        match op & 0x1f {
            0..=3 => {
                let asks = Asks { flags: input.byte(), shape: input.byte() };
                let parent = if variant == 1 { self.running(worker, which) } else { None };
                self.send(client, asks, parent);
            }
            4 => self.send_again(client, which),
            5 => self.cancel(client, which),
            6 if variant & 4 == 0 => self.fetch(client, which),
            6 => self.settle_outcome(client, which),
            7 if variant & 1 == 0 => self.end_client(client, Disconnect::Broken),
            7 => self.end_client(client, Disconnect::Orderly),
            8 => self.connect_client(client),
            9 => {
                self.workers[worker].slots = 1 + u32::from(variant & 1);
                self.workers[worker].prefetch = u32::from(variant >> 1 & 1);
                if variant & 4 != 0 {
                    self.workers[worker].process += 1;
                    self.workers[worker].held.clear();
                }
                self.connect_worker(worker);
            }
            10 if variant & 1 == 0 => self.end_worker(worker, Disconnect::Broken),
            10 => self.end_worker(worker, Disconnect::Orderly),
            11..=14 => self.finish(worker, which, variant),
            15 => self.hand_back(worker, which, variant),
            16 => self.park(worker, which, variant & 1 == 0),
            17 => self.sign(worker, which, variant),
            18 => self.report(worker, which, variant),
            19 | 20 => self.emit(worker, which, variant),
            21 => self.credit(client, which, variant),
            22 => self.resume(client, which, variant),
            23 => self.upload(client, which, variant),
            24 => self.read_input(worker, which, variant),
            25 => self.steal(worker, usize::from(variant) % WORKERS, which),
            26 => self.sync(),
            27 => self.pass([1, 10, 60, 600, 2_500, 5_001, 11_000, 31_000][usize::from(variant)]),
            28 => self.it.stall([1, 10, 60, 600, 2_500, 5_001, 1, 1][usize::from(variant)]),
            29 => self.change_rules(who, variant),
            30 => self.workers[worker].is_silent = variant & 1 == 0,
            _ => self.rare(worker, who, variant),
        }
        self.listen();
    }

    /// All that the core wanted to be on disk is.
    pub(super) fn sync(&mut self) {
        let up_to = self.journal.sync();
        self.it.core.journal_synced(self.it.now, up_to);
        self.listen();
    }

    fn change_rules(&mut self, who: u8, variant: u8) {
        let action = ActionName::try_from("work").unwrap();
        let mut rules = (*self.it.core.rules(action.as_str())).clone();
        rules.policy = Policy::ALL[usize::from(who) % Policy::ALL.len()];
        rules.max_running = variant.into();
        self.it.core.set_rules(self.it.now, action, rules);
    }

    /// What ends much.
    fn rare(&mut self, worker: usize, who: u8, variant: u8) {
        match (variant, who) {
            (0, _) => {
                if let Some(connection) = self.workers[worker].connection {
                    self.it.core.handle_unreachable(self.it.now, connection);
                }
            }
            (1, 0xff) => {
                self.is_unjournalled = true;
                self.it.core.journal_failed(self.it.now, "no more room");
            }
            (4, _) => self.restart(who),
            (2, 0xff) => self.it.core.begin_shutdown(self.it.now, 1_000),
            (3, _) => {
                if let Some(connection) = self.clients[usize::from(who) % CLIENTS].connection {
                    self.it.core.handle_overflow(self.it.now, connection);
                }
            }
            _ => {}
        }
    }
}
