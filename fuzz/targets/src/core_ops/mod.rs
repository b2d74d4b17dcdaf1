//! Operations on a core, beside a model that is small enough to be right.
//!
//! Clients and workers hear at once what the core says, and the model knows what each of them waits for
//! and holds. What it checks is in `world`: each task has one outcome, which all who wait for it hear
//! once, by the end of its time to live; no more is routed to a worker than it takes, nothing twice that
//! may not run twice, and nothing after its deadline; a durable task is acknowledged, and its outcome told,
//! once that is on disk, and none of them is forgotten when the broker crashes; parts of results come in
//! order.

mod client;
mod client_ops;
mod journal;
mod ops;
mod restart;
mod setting;
mod task;
mod worker;
mod worker_ops;
mod world;

use crate::input::Input;
use crate::memory;
use setting::Setting;
use world::World;

/// What the core and the model take at most.
const MAX_PER_BYTE: usize = 2 * 1024;
const MAX_OTHERWISE: usize = 4 * 1024 * 1024;

/// Whatever clients and workers do, in whatever order: the core does what the model says, and once all
/// is over nothing is left.
///
/// The first bytes are settings, the others a sequence of operations; see `World::apply`.
pub fn core_ops(data: &[u8]) {
    memory::within(MAX_PER_BYTE * data.len() + MAX_OTHERWISE, || {
        let mut input = Input::new(data);
        let mut world = World::new(Setting::new(&mut input));
        while !input.is_empty() {
            world.apply(&mut input);
        }
        world.settle();
    });
}
