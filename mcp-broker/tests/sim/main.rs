//! The broker under simulation: the core and its journal, clients and workers under one seed, on
//! simulated time, network and disk. See README.md beside this file.
//!
//! ```sh
//! SIM_SEEDS=10000 cargo test -p mcp-broker --test sim promised   # more than the usual 200
//! SIM_SEED=17 SIM_TRACE=1 cargo test -p mcp-broker --test sim promised -- --nocapture   # one
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

use sim::{Planted, Sim, Watch};

/// That the tests look at.
const SEEDS: u64 = 200;

#[test]
fn what_is_promised_holds_whatever_goes_wrong() {
    let asked = |name| env::var(name).ok()?.parse().ok();
    if let Some(seed) = asked("SIM_SEED") {
        let is_wanted = env::var("SIM_TRACE").is_ok();
        Sim::run(seed, None, if is_wanted { Watch::Printed } else { Watch::Nothing });
        return;
    }
    let seeds = asked("SIM_SEEDS").unwrap_or(SEEDS);
    let failed = failing(seeds);
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
}

/// Runs seeds on all processors, and says how to run each again that fails.
fn failing(seeds: u64) -> Vec<u64> {
    let next = AtomicU64::new(0);
    let one_after_another = || {
        let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed))
            .take_while(|seed| *seed < seeds);
        let failed = seeds.filter(|seed| fails(*seed, None));
        failed.inspect(|seed| println!("SIM_SEED={seed} {AGAIN}")).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_after_another)).collect();
        let mut failed: Vec<_> = running.into_iter().flat_map(|it| it.join().unwrap()).collect();
        failed.sort_unstable();
        failed
    })
}

const AGAIN: &str = "SIM_TRACE=1 cargo test -p mcp-broker --test sim promised -- --nocapture";

fn fails(seed: u64, planted: Option<Planted>) -> bool {
    panic::catch_unwind(|| Sim::run(seed, planted, Watch::Nothing)).is_err()
}

#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in 0..5 {
        let run = || Sim::run(seed, None, Watch::Kept);
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// Others are planted in the product itself: planted.sh.
#[test]
fn what_is_wrong_with_the_disk_is_found() {
    for planted in [Planted::AckBeforeSync, Planted::LyingDisk] {
        let found = (0..SEEDS).find(|seed| fails(*seed, Some(planted)));
        println!("{planted:?}: found by {found:?}");
        assert!(found.is_some(), "{planted:?} is not found");
    }
}
