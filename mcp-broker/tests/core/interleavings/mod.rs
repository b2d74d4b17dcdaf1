//! Whatever happens, in whatever order: each task has one outcome, a slot comes back once, no worker
//! is routed more than its slots and prefetch, a task that may not run twice does not, and one that
//! is tried again is so after its wait, no more often than it asked for, and as its trace tells. No more
//! attempts run than may, and no task waits while a worker that is well could take it. A task has two
//! attempts at once at most, and only if it may be hedged. No
//! child outlives a parent that was cancelled or expired, nor its time to live. A result in parts
//! reaches its reader in order, once, and whole, unless it is told what is missing; and its worker
//! never waits for credit in vain. An input in chunks reaches each attempt in order, from its beginning,
//! within bounds. No task is sent to a worker of the other kind, live or shadow, and copies of tasks
//! change nothing of it. A task without a worker takes its fallback chain, and none of a degraded action
//! reaches its workers. What is told of a task before it comes is what becomes of it.
//!
//! Clients and workers are models: frames wait unread in their connection, are lost when it breaks,
//! and a worker lists what it holds when it comes back.

mod client;
mod client_ops;
mod expected;
mod invariants;
mod ops;
mod sent;
mod uploads;
mod worker;
mod worker_ops;
mod world;

use proptest::prelude::*;

use mcp_broker::broker::{Affinity, Policy};

use ops::{Op, op};
use world::{Chain, Health, Setting, World};

/// The last one gets shadow tasks.
const WORKERS: usize = 4;
const SHADOW_WORKER: usize = WORKERS - 1;
const CLIENTS: usize = 2;
/// Of live tasks, at one time.
const MAX_COPIES: usize = 2;

fn policy() -> impl Strategy<Value = (Policy, Affinity)> + Clone {
    prop_oneof![
        4 => prop::sample::select(Policy::ALL).prop_map(|policy| (policy, Affinity::Soft)),
        1 => Just((Policy::SessionHash, Affinity::Hard)),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    (
        policy(),
        prop_oneof![Just(Health::AsUsual), Just(Health::Hasty), Just(Health::Off)],
        prop_oneof![Just(0u32), Just(1_000)],
        prop_oneof![Just(64 * 1024 * 1024), Just(600usize), Just(200)],
        any::<bool>(),
        // Enough for some with much room, or for few with little.
        prop_oneof![Just(1024 * 1024usize), Just(300 * 1024)],
        prop_oneof![2 => Just(0u32), 1 => Just(1), 1 => Just(3)],
        prop_oneof![2 => Just(0u64), 1 => Just(500)],
        prop_oneof![Just(0.0), Just(30.0), Just(100.0)],
        any::<bool>(),
        prop_oneof![Just(Chain::None), Just(Chain::Spare), Just(Chain::Whole)],
    )
        .prop_map(|it| Setting {
            policy: it.0.0,
            affinity: it.0.1,
            health: it.1,
            retry_budget_percent: it.2,
            stream_bytes: it.3,
            hedges: it.4,
            upload_bytes: it.5,
            max_running: it.6,
            max_queue_wait_ms: it.7,
            mirror_percent: it.8,
            is_split: it.9,
            chain: it.10,
        })
}

fn happens(world: &mut World, ops: Vec<Op>) {
    ops.into_iter().for_each(|op| world.apply(op));
    world.settle();
}

/// So many cases, or as many as the environment asks for.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|asked| asked.parse().ok());
    let cases = asked.unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn each_task_has_one_outcome_and_each_slot_comes_back_once(
        setting in setting(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        happens(&mut World::new(setting), ops);
    }
}

proptest! {
    #![proptest_config(config(20))]

    #[test]
    fn the_same_inputs_under_the_same_seed_give_the_same_outputs_whatever_is_asked(
        setting in setting(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let outputs = |ops, is_asked| {
            let mut world = World::new(setting);
            world.is_asked = is_asked;
            world.it.transcript = Some(Vec::new());
            happens(&mut world, ops);
            world.it.transcript.take()
        };
        prop_assert_eq!(outputs(ops.clone(), true), outputs(ops, false));
    }
}
