//! The broker under simulation: the core, its journal, clients and workers under one seed, on
//! simulated time, network and disk.
//!
//! ```sh
//! SIM_SEEDS=10000 cargo test -p mcp-broker --test sim     # more than the usual 200
//! SIM_SEED=17 SIM_TRACE=1 cargo test -p mcp-broker --test sim -- --nocapture   # one, and how it went
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod asks;
mod broker;
mod chaos;
mod client;
mod disk;
mod healing;
mod network;
mod operator;
mod oracle;
mod plan;
mod rng;
mod sim;
mod words;
mod worker;

use std::env;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sim::{Sim, Watch};

/// That the tests look at.
const SEEDS: u64 = 200;

fn asked(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn what_is_promised_holds_whatever_goes_wrong() {
    let watch = if env::var("SIM_TRACE").is_ok() { Watch::Printed } else { Watch::Nothing };
    if let Some(seed) = asked("SIM_SEED") {
        Sim::run(seed, None, watch);
        return;
    }
    let seeds = asked("SIM_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<u64> = failing(seeds);
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
}

/// Runs seeds on all processors, and says how to run each again that fails.
fn failing(seeds: u64) -> Vec<u64> {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let one_after_another = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return failed;
            }
            if panic::catch_unwind(|| Sim::run(seed, None, Watch::Nothing)).is_err() {
                println!(
                    "SIM_SEED={seed} SIM_TRACE=1 cargo test -p mcp-broker --test sim -- --nocapture"
                );
                failed.push(seed);
            }
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_after_another)).collect();
        let mut failed: Vec<u64> = running.into_iter().flat_map(|it| it.join().unwrap()).collect();
        failed.sort_unstable();
        failed
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        let run = || Sim::run(seed, None, Watch::Kept);
        assert_eq!(run(), run(), "seed {seed}");
    }
}
