//! What the broker claims of its scheduling, beside what was measured.

use super::record::{Record, median_of};
use crate::text;

/// One claim, and what it takes to hold.
struct Claim {
    claim: &'static str,
    measured: Option<f64>,
    at_most: f64,
}

/// A table of those that the simulated cells say something of; empty when none do.
pub(super) fn all(records: &[Record]) -> String {
    let mut table = text::table(["claim", "measured", "at most", ""].map(str::to_owned).to_vec());
    let claims: Vec<_> = claims(records).into_iter().filter(|it| it.measured.is_some()).collect();
    if claims.is_empty() {
        return String::new();
    }
    for Claim { claim, measured, at_most } in claims {
        let measured = measured.unwrap_or_default();
        let verdict = if measured <= at_most { "holds" } else { "DOES NOT HOLD" };
        let number = |value: f64| format!("{value:.3}");
        table.add_row([claim.to_owned(), number(measured), number(at_most), verdict.to_owned()]);
    }
    format!("{table}\n")
}

fn claims(records: &[Record]) -> Vec<Claim> {
    let p99 = |workload: &str, policy: &str| {
        median_of(records, workload, policy, |it| Some(it.all.p99_ms))
    };
    let beside_random =
        |workload, policy| ratio(p99(workload, policy), p99(workload, "push_random"));
    let overload_p99 = |it: &Record| it.figures.all.p99_ms;
    let tenant = |workload: &str, policy: &str| {
        median_of(records, workload, policy, |it| Some(it.groups.first().unwrap_or(&it.all).p99_ms))
    };
    let flooded = policies(records).filter_map(|policy| {
        ratio(tenant("tenant_flooded", policy), tenant("tenant_alone", policy))
    });
    vec![
        Claim {
            claim: "one slow worker in eight: p99 of p2c ÷ of a random worker",
            measured: beside_random("slow_worker", "p2c"),
            at_most: 0.35,
        },
        Claim {
            claim: "one slow worker in eight: p99 of least_loaded ÷ of a random worker",
            measured: beside_random("slow_worker", "least_loaded"),
            at_most: 0.35,
        },
        Claim {
            claim: "the same at load 10 %: p2c",
            measured: beside_random("slow_worker_quiet", "p2c"),
            at_most: 0.35,
        },
        Claim {
            claim: "the same at load 10 %: least_loaded",
            measured: beside_random("slow_worker_quiet", "least_loaded"),
            at_most: 0.35,
        },
        Claim {
            claim: "tasks at workers beyond their slots, any policy and workload",
            measured: worst(ours(records).map(|it| it.figures.over_assigned as f64)),
            at_most: 0.0,
        },
        Claim {
            claim: "one tenant floods: another's p99 ÷ alone, worst policy",
            measured: worst(flooded),
            at_most: 2.0,
        },
        Claim {
            claim: "overload 3×: 1 − goodput, worst policy",
            measured: worst(of(records, "overload_3x").map(|it| 1.0 - it.figures.all.goodput)),
            at_most: 0.1,
        },
        Claim {
            claim: "overload 3×: p99 of what is taken, ms, worst policy (service time: 20)",
            measured: worst(of(records, "overload_3x").map(overload_p99)),
            at_most: 80.0,
        },
        Claim {
            claim: "balanced keys: session_hash's misses of affinity",
            measured: median_of(records, "balanced_keys", "session_hash", |it| {
                it.affinity.map(|share| 1.0 - share)
            }),
            at_most: 0.05,
        },
        Claim {
            claim: "one hot key: session_hash's busiest worker ÷ the mean",
            measured: median_of(records, "hot_key", "session_hash", |it| Some(it.largest)),
            at_most: 1.25,
        },
    ]
}

fn ours(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|it| it.is_ours)
}

fn of<'a>(records: &'a [Record], workload: &'a str) -> impl Iterator<Item = &'a Record> {
    ours(records).filter(move |it| it.workload == workload)
}

/// The broker's, each once for every cell.
fn policies(records: &[Record]) -> impl Iterator<Item = &str> {
    ours(records).map(|it| it.policy.as_str())
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}

fn worst(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::max)
}
