//! A broker that crashes and starts again.

use std::collections::BTreeMap;

use mcp_broker::broker::Record;
use mcp_proto::Message;

use super::task::{Sent, number, task_id};
use super::world::World;

impl World {
    /// The core is lost with all but its journal. What that has of tasks goes on; nobody knows the
    /// others any more.
    pub(super) fn restart(&mut self, unsynced: u8) {
        let records = self.journal.crash(unsynced.into());
        let setting = self.setting;
        self.it.restart(|config| setting.apply(config));
        self.is_unjournalled = false;
        for client in &mut self.clients {
            client.connection = None;
            client.forget();
        }
        self.workers.iter_mut().for_each(|worker| worker.connection = None);
        let kept = self.forget_all_but(&records);
        let restored = self.it.core.restore_from_journal(self.it.now, records);
        assert_eq!(restored.left_out, 0);
        self.listen();
        self.connect_client(0);
        for task in kept {
            self.clients[0].waits.insert(task);
            if let Some(connection) = self.clients[0].connection {
                self.it.give(connection, Message::Fetch(task_id(task)));
                self.listen();
            }
        }
    }

    /// Returns the tasks that are in the journal.
    fn forget_all_but(&mut self, records: &[Record]) -> Vec<usize> {
        let mut has_ended = BTreeMap::new();
        for record in records {
            match record {
                Record::Accepted(name, _) => has_ended.insert(number(&name.task_id), false),
                Record::Ended(name, _) | Record::Settled(name, _) => {
                    has_ended.insert(number(&name.task_id), true)
                }
                _ => None,
            };
        }
        for (task, sent) in self.sent.iter_mut().enumerate() {
            let Sent { asks, start, deadline, begun, .. } = *sent;
            match has_ended.get(&task) {
                Some(true) => {}
                Some(false) => {
                    // Attempts are counted anew.
                    sent.began_before |= begun > 0;
                    (sent.begun, sent.outcome) = (0, None);
                }
                None => *sent = Sent::new(asks, start, deadline),
            }
            (sent.parent, sent.is_cut_short) = (None, false);
        }
        has_ended.into_keys().collect()
    }
}
