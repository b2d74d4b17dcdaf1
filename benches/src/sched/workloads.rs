//! The workloads.

use mcp_proto::Priority;
use serde_json::{Map, Value, json};

use super::random::Service;
use super::traffic::{Arrivals, Keys, Traffic};
use super::workload::{SimWorker, Workload, speed};

/// What a task takes an ordinary worker on average, µs.
const SERVICE_US: f64 = 20_000.0;

const WORKERS: usize = 8;
const SLOTS: u32 = 4;

/// Of the workers that serve sessions: inference servers batch.
const SESSION_SLOTS: u32 = 16;

/// Distinct affinity keys.
const SESSIONS: u64 = 1000;

/// Of the tenants' tasks.
const TENANT_TTL_MS: u64 = 2_000;

/// The bound of the overloads, ms: twice the service time.
const MAX_QUEUE_WAIT_MS: u64 = 40;

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let even = workers(SLOTS);
    let mut slow = workers(SLOTS);
    slow[0].slowness = 10;
    let mut failing = workers(SLOTS);
    failing[0].fails = 0.5;
    let sessions = workers(SESSION_SLOTS);
    let single = workers(1);
    vec![
        Workload {
            name: "steady",
            title: "eight equal workers, load 70 %".to_owned(),
            traffic: vec![poisson(&even, 0.7, Service::Exponential)],
            ..plain(&even)
        },
        Workload {
            name: "slow_worker",
            title: "one of eight workers is 10× slower, load 70 %".to_owned(),
            traffic: vec![poisson(&slow, 0.7, Service::Exponential)],
            rules: policy_alone(),
            ..plain(&slow)
        },
        Workload {
            name: "slow_worker_quiet",
            title: "one of eight workers is 10× slower, load 10 %".to_owned(),
            traffic: vec![poisson(&slow, 0.1, Service::Exponential)],
            rules: policy_alone(),
            ..plain(&slow)
        },
        Workload {
            name: "slow_worker_outlier",
            title: "10× slower, load 70 %, outliers left out".to_owned(),
            traffic: vec![poisson(&slow, 0.7, Service::Exponential)],
            ..plain(&slow)
        },
        Workload {
            name: "failing_worker",
            title: "one of eight workers fails half of its tasks at once, load 70 %".to_owned(),
            traffic: vec![poisson(&failing, 0.7, Service::Exponential)],
            ..plain(&failing)
        },
        Workload {
            name: "heavy_tail",
            title: "heavy-tailed service times, load 70 %".to_owned(),
            traffic: vec![poisson(&even, 0.7, Service::HeavyTailed)],
            ttl_ms: 30_000,
            ..plain(&even)
        },
        Workload {
            name: "bursts",
            title: "bursts of 16 on eight workers of one slot, load 70 %".to_owned(),
            traffic: vec![Traffic {
                arrivals: bursts(&single, 0.7, 16),
                ..poisson(&single, 0.7, Service::Fixed)
            }],
            ..plain(&single)
        },
        Workload {
            name: "priorities",
            title: "mixed priorities, load 110 %".to_owned(),
            traffic: [("high", 0.2), ("normal", 0.6), ("low", 0.3)]
                .map(|(name, load)| Traffic {
                    name,
                    priority: match name {
                        "high" => Priority::High,
                        "low" => Priority::Low,
                        _ => Priority::Normal,
                    },
                    ..poisson(&even, load, Service::Exponential)
                })
                .to_vec(),
            ttl_ms: 2_000,
            ..plain(&even)
        },
        overload("overload_1.5x", 1.5),
        overload("overload_3x", 3.0),
        Workload {
            name: "balanced_keys",
            title: format!("{SESSIONS} sessions, all as busy, load 50 %"),
            traffic: vec![Traffic {
                keys: Keys::Balanced { count: SESSIONS },
                ..poisson(&sessions, 0.5, Service::Exponential)
            }],
            ..plain(&sessions)
        },
        Workload {
            name: "hot_key",
            title: format!("{SESSIONS} sessions, one with 30 % of all tasks, load 50 %"),
            traffic: vec![Traffic {
                keys: Keys::Hot { count: SESSIONS, share: 0.3 },
                ..poisson(&sessions, 0.5, Service::Exponential)
            }],
            ..plain(&sessions)
        },
        Workload {
            name: "tenant_alone",
            title: "a tenant with 10 %, alone".to_owned(),
            traffic: vec![tenant("steady", 0.1)],
            ttl_ms: TENANT_TTL_MS,
            ..plain(&even)
        },
        Workload {
            name: "tenant_flooded",
            title: "a tenant with 10 %, another that floods with 200 %".to_owned(),
            traffic: vec![tenant("steady", 0.1), tenant("flood", 2.0)],
            ttl_ms: TENANT_TTL_MS,
            ..plain(&even)
        },
    ]
}

fn overload(name: &'static str, factor: f64) -> Workload {
    let workers = workers(SLOTS);
    Workload {
        name,
        title: format!("overload {factor}×, max_queue_wait_ms = {MAX_QUEUE_WAIT_MS}"),
        traffic: vec![poisson(&workers, factor, Service::Fixed)],
        ttl_ms: 1_000,
        rules: [("max_queue_wait_ms".to_owned(), json!(MAX_QUEUE_WAIT_MS))].into_iter().collect(),
        ..plain(&workers)
    }
}

/// Slow workers are not left out: only the policy deals with them.
fn policy_alone() -> Map<String, Value> {
    [("outlier".to_owned(), json!({ "sigmas": 0.0 }))].into_iter().collect()
}

/// A workload without traffic.
fn plain(workers: &[SimWorker]) -> Workload {
    Workload {
        name: "",
        title: String::new(),
        workers: workers.to_vec(),
        traffic: Vec::new(),
        ttl_ms: 10_000,
        rules: Map::new(),
    }
}

fn workers(slots: u32) -> Vec<SimWorker> {
    vec![SimWorker { slots, slowness: 1, fails: 0.0 }; WORKERS]
}

/// Traffic of so much of the workers' capacity.
fn poisson(workers: &[SimWorker], load: f64, service: Service) -> Traffic {
    Traffic {
        name: "all",
        arrivals: Arrivals::Poisson { per_s: load * speed(workers) * 1e6 / SERVICE_US },
        service,
        mean_service_us: SERVICE_US,
        keys: Keys::None,
        priority: Priority::Normal,
        tenant: "",
    }
}

fn bursts(workers: &[SimWorker], load: f64, tasks: u32) -> Arrivals {
    let interval_us = f64::from(tasks) * SERVICE_US / (speed(workers) * load);
    Arrivals::Bursts { tasks, interval_us: interval_us as u64 }
}

fn tenant(name: &'static str, load: f64) -> Traffic {
    Traffic { name, tenant: name, ..poisson(&workers(SLOTS), load, Service::Exponential) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_as_the_titles_say() {
        let load = |name: &str| {
            let all = all();
            let workload = all.iter().find(|it| it.name == name).unwrap();
            let per_s: f64 = workload.traffic.iter().map(Traffic::per_s).sum();
            (per_s / workload.capacity_per_s() * 100.0).round()
        };
        let expected = [
            ("steady", 70.0),
            ("slow_worker", 70.0),
            ("slow_worker_quiet", 10.0),
            ("slow_worker_outlier", 70.0),
            ("failing_worker", 70.0),
            ("heavy_tail", 70.0),
            ("bursts", 70.0),
            ("priorities", 110.0),
            ("overload_1.5x", 150.0),
            ("overload_3x", 300.0),
            ("tenant_alone", 10.0),
            ("tenant_flooded", 210.0),
        ];
        for (name, percent) in expected {
            assert_eq!(load(name), percent, "{name}");
        }
    }

    #[test]
    fn what_comes_of_one_traffic_does_not_depend_on_another() {
        let all = all();
        let steady = |name: &str| {
            let workload = all.iter().find(|it| it.name == name).unwrap();
            let tasks = workload.tasks(1_000_000, 7);
            let steady = tasks.iter().filter(|task| task.group == 0);
            steady.map(|task| (task.at_us, task.service_us)).collect::<Vec<_>>()
        };
        assert!(!steady("tenant_alone").is_empty());
        assert_eq!(steady("tenant_alone"), steady("tenant_flooded"));
    }
}
