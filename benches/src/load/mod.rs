//! The client's side of a run: keeps a peer busy in a given way, and measures it.
//!
//! One generator for all peers: what differs is only how each calls, see [`Caller`].

mod closed;
mod cpu;
mod open;
mod recorder;
mod ticker;

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use cpu::Clocks;
use recorder::{Belongs, Recorder};
pub(crate) use ticker::Ticker;

/// A client of some peer.
pub(crate) trait Caller: 'static {
    /// Sends a task and waits for its result.
    async fn call(&self, body: Bytes) -> Result<Bytes>;
}

/// What a client shall do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) mode: Mode,
    pub(crate) payload_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// The processes whose CPU time is measured besides this one's.
    pub(crate) server_pid: Option<u32>,
    pub(crate) worker_pid: Option<u32>,
}

/// When the next task is sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// When one of so many has come back.
    Closed { in_flight: u32 },
    /// So many a second, whatever comes back.
    Open { rate: f64 },
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) tasks_per_s: f64,
    pub(crate) latency: Latency,
    /// CPU time of each process, µs, by tasks.
    pub(crate) server_cpu_us_per_task: Option<f64>,
    pub(crate) worker_cpu_us_per_task: Option<f64>,
    pub(crate) client_cpu_us_per_task: Option<f64>,
    /// Tasks that failed or came to no end, and why the first did.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// Latencies, µs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Shares of tasks, and the latency within which they were done.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// Puts `load` on a peer. To be called within a `LocalSet` of a current-thread runtime.
pub(crate) async fn run(caller: impl Caller, load: Load) -> Result<Measured> {
    let belongs = match load.mode {
        Mode::Closed { .. } => Belongs::ByEnd,
        Mode::Open { .. } => Belongs::ByStart,
    };
    let (caller, recorder) = (Rc::new(caller), Rc::new(Recorder::new(load.payload_bytes, belongs)));
    let body = Bytes::from(vec![b'm'; load.payload_bytes]);
    match load.mode {
        Mode::Closed { in_flight } => closed::start(&caller, &recorder, in_flight, &body),
        Mode::Open { rate } => open::start(&caller, &recorder, rate, &body),
    }
    let window = Window::measure(&load, &recorder).await;
    if let Mode::Open { .. } = load.mode {
        open::settle(&recorder).await;
    }
    if window.tasks == 0 {
        let why = recorder.first_error().unwrap_or_else(|| "none came back".to_owned());
        bail!("no task was done: {why}");
    }
    let per_task = |clock| cpu::per_task(clock, &window.before, &window.after, window.tasks);
    Ok(Measured {
        tasks_per_s: window.tasks as f64 / window.elapsed.as_secs_f64(),
        latency: recorder.latency(),
        server_cpu_us_per_task: per_task(|clocks| clocks.server_us),
        worker_cpu_us_per_task: per_task(|clocks| clocks.worker_us),
        client_cpu_us_per_task: per_task(|clocks| clocks.client_us),
        errors: recorder.errors(),
        first_error: recorder.first_error(),
    })
}

/// The time that counts.
struct Window {
    elapsed: Duration,
    /// Done within it.
    tasks: u64,
    before: Clocks,
    after: Clocks,
}

impl Window {
    async fn measure(load: &Load, recorder: &Recorder) -> Self {
        tokio::time::sleep(load.warm_up).await;
        let (start, before) = (Instant::now(), Clocks::read(load));
        let done = recorder.done();
        recorder.open(start);
        tokio::time::sleep(load.measured).await;
        let elapsed = start.elapsed();
        recorder.close();
        let tasks = recorder.done() - done;
        Self { elapsed, tasks, before, after: Clocks::read(load) }
    }
}
