//! What can happen, and how often.

use mcp_broker::broker::{Affinity, Policy};
use mcp_proto::{Priority, Retry, Task};
use proptest::prelude::*;

use super::{CLIENTS, WORKERS, policy};
use crate::fixture::{task, task_id};

/// One thing that happens. `task` and `held` count among those that there are.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Send { client: usize, asks: Asks },
    SendChild { client: usize, asks: Asks, worker: usize, held: usize },
    SendAgain { client: usize, task: usize },
    Cancel { client: usize, task: usize },
    ClientReads { client: usize },
    Credit { client: usize, task: usize },
    Upload { client: usize, task: usize, chunks: u32, is_end: bool },
    ReadOn { client: usize, task: usize },
    ClientBreaks { client: usize },
    ClientLeaves { client: usize },
    ClientConnects { client: usize, resumes_later: bool },
    ClientResumes { client: usize },
    WorkerReads { worker: usize },
    Emit { worker: usize, held: usize, bytes: usize },
    ReadInput { worker: usize, held: usize },
    Finish { worker: usize, held: usize, how: How },
    HandBack { worker: usize, held: usize },
    PutOff { worker: usize, held: usize, ms: u64 },
    Park { worker: usize, held: usize, is_parked: bool },
    Sign { worker: usize, held: usize, is_start: bool },
    Forget { worker: usize, held: usize },
    Ping { worker: usize, is_draining: bool },
    Repeat { worker: usize },
    Steal { worker: usize, from: usize, held: usize },
    Break { worker: usize },
    Leave { worker: usize },
    Connect { worker: usize, is_new_process: bool },
    ChangePolicy { policy: Policy, affinity: Affinity },
    Degrade { is_degraded: bool },
    AllRead,
    AllComeBack,
    Advance { ms: u64 },
}

/// What a task asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    pub(super) is_idempotent: bool,
    pub(super) retry: Option<Retry>,
    pub(super) attempt_timeout_ms: u32,
    pub(super) ends_with_connection: bool,
    pub(super) ttl_ms: u64,
    pub(super) priority: Priority,
    pub(super) tenant: &'static str,
    /// 0: it is not taken in parts.
    pub(super) window_bytes: u32,
    /// Its input comes in chunks.
    pub(super) is_upload: bool,
    pub(super) is_shadow: bool,
    pub(super) affinity_key: &'static str,
    /// Its trace tells why its workers were chosen.
    pub(super) is_explained: bool,
}

impl Asks {
    /// Whether it may have two attempts at once.
    pub(super) fn may_be_hedged(&self) -> bool {
        self.is_idempotent
            && self.priority >= Priority::High
            && self.window_bytes == 0
            && !self.is_upload
    }

    pub(super) fn task(&self, id: &str, parent: Option<&str>) -> Task {
        Task {
            idempotent: self.is_idempotent,
            priority: self.priority,
            tenant: self.tenant.into(),
            retry: self.retry,
            attempt_timeout_ms: self.attempt_timeout_ms,
            cancel_on_disconnect: self.ends_with_connection,
            shadow: self.is_shadow,
            affinity_key: self.affinity_key.into(),
            explain: self.is_explained,
            parent: parent.map(task_id),
            ..task(id)
        }
    }
}

/// How a handler ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Ok,
    Failed,
    FailedForGood,
    FailedUnstarted,
    Panicked,
}

fn asks() -> impl Strategy<Value = Asks> {
    let hedged = |asks| Asks {
        is_idempotent: true,
        priority: Priority::High,
        window_bytes: 0,
        is_upload: false,
        ..asks
    };
    prop_oneof![2 => any_asks(), 1 => any_asks().prop_map(hedged)]
}

fn any_asks() -> impl Strategy<Value = Asks> {
    let retry = |max_attempts| Retry {
        max_attempts,
        initial_ms: 50,
        coefficient_percent: 300,
        cap_ms: 400,
    };
    (
        any::<bool>(),
        prop::option::weighted(0.3, (1..4u32).prop_map(retry)),
        prop_oneof![4 => Just(0u32), 1 => Just(30), 1 => Just(1_000)],
        prop::bool::weighted(0.1),
        prop_oneof![Just(50u64), Just(3_000), Just(60_000)],
        (
            prop::sample::select(Priority::ALL),
            prop_oneof![2 => Just(""), 1 => Just("a"), 1 => Just("b")],
        ),
        prop_oneof![
            3 => Just(0u32),
            1 => Just(10),
            4 => Just(150),
            1 => Just(700),
            1 => Just(u32::MAX),
        ],
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.15),
        prop::sample::select(&["", "a", "b", "c"][..]),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(
                is_idempotent,
                retry,
                attempt_timeout_ms,
                ends_with_connection,
                ttl_ms,
                (priority, tenant),
                window_bytes,
                is_upload,
                is_shadow,
                affinity_key,
                is_explained,
            )| {
                Asks {
                    is_idempotent,
                    retry,
                    attempt_timeout_ms,
                    ends_with_connection,
                    ttl_ms,
                    priority,
                    tenant,
                    window_bytes,
                    is_upload,
                    is_shadow,
                    affinity_key,
                    is_explained,
                }
            },
        )
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Ok),
        3 => Just(How::Failed),
        1 => Just(How::FailedForGood),
        1 => Just(How::FailedUnstarted),
        3 => Just(How::Panicked),
    ]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => client_op(),
        46 => worker_op(),
        1 => policy().prop_map(|(policy, affinity)| Op::ChangePolicy { policy, affinity }),
        1 => prop::bool::weighted(0.3).prop_map(|is_degraded| Op::Degrade { is_degraded }),
        2 => Just(Op::AllRead),
        3 => Just(Op::AllComeBack),
        3 => Just(Op::Advance { ms: 1 }),
        4 => time_op(),
    ]
}

fn client_op() -> impl Strategy<Value = Op> {
    let (c, n) = (0..CLIENTS, 0usize..8);
    prop_oneof![
        12 => (c.clone(), asks()).prop_map(|(client, asks)| Op::Send { client, asks }),
        5 => (c.clone(), asks(), 0..WORKERS, n.clone())
            .prop_map(|(client, asks, worker, held)| Op::SendChild { client, asks, worker, held }),
        2 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::SendAgain { client, task }),
        3 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::Cancel { client, task }),
        6 => c.clone().prop_map(|client| Op::ClientReads { client }),
        4 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::Credit { client, task }),
        1 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::ReadOn { client, task }),
        5 => (c.clone(), n, 1..20u32, prop::bool::weighted(0.2)).prop_map(
            |(client, task, chunks, is_end)| Op::Upload { client, task, chunks, is_end }
        ),
        2 => c.clone().prop_map(|client| Op::ClientBreaks { client }),
        1 => c.clone().prop_map(|client| Op::ClientLeaves { client }),
        4 => (c.clone(), any::<bool>())
            .prop_map(|(client, resumes_later)| Op::ClientConnects { client, resumes_later }),
        2 => c.prop_map(|client| Op::ClientResumes { client }),
    ]
}

fn worker_op() -> impl Strategy<Value = Op> {
    let (w, n) = (0..WORKERS, 0usize..8);
    prop_oneof![
        12 => w.clone().prop_map(|worker| Op::WorkerReads { worker }),
        12 => (w.clone(), n.clone(), prop_oneof![Just(0usize), 1..300usize])
            .prop_map(|(worker, held, bytes)| Op::Emit { worker, held, bytes }),
        4 => (w.clone(), n.clone()).prop_map(|(worker, held)| Op::ReadInput { worker, held }),
        8 => (w.clone(), n.clone(), how())
            .prop_map(|(worker, held, how)| Op::Finish { worker, held, how }),
        2 => (w.clone(), n.clone()).prop_map(|(worker, held)| Op::HandBack { worker, held }),
        2 => (w.clone(), n.clone(), prop_oneof![Just(0u64), Just(40), Just(700), Just(u64::MAX)])
            .prop_map(|(worker, held, ms)| Op::PutOff { worker, held, ms }),
        4 => (w.clone(), n.clone(), any::<bool>())
            .prop_map(|(worker, held, is_parked)| Op::Park { worker, held, is_parked }),
        2 => (w.clone(), n.clone(), any::<bool>())
            .prop_map(|(worker, held, is_start)| Op::Sign { worker, held, is_start }),
        1 => (w.clone(), n.clone()).prop_map(|(worker, held)| Op::Forget { worker, held }),
        3 => (w.clone(), prop::bool::weighted(0.1))
            .prop_map(|(worker, is_draining)| Op::Ping { worker, is_draining }),
        1 => w.clone().prop_map(|worker| Op::Repeat { worker }),
        1 => (w.clone(), w.clone(), n)
            .prop_map(|(worker, from, held)| Op::Steal { worker, from, held }),
        2 => w.clone().prop_map(|worker| Op::Break { worker }),
        1 => w.clone().prop_map(|worker| Op::Leave { worker }),
        5 => (w, prop::bool::weighted(0.2))
            .prop_map(|(worker, is_new_process)| Op::Connect { worker, is_new_process }),
    ]
}

fn time_op() -> impl Strategy<Value = Op> {
    prop_oneof![Just(1u64), Just(60), Just(600), Just(2_500), Just(11_000), Just(31_000)]
        .prop_map(|ms| Op::Advance { ms })
}
