//! Sending the tasks, and noting how they end.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mcp_client::{ActionName, Client, Outcome, TaskEnd};
use tokio_util::sync::CancellationToken;

use super::Bench;
use super::progress::Progress;
use super::schedule::Schedule;
use crate::exit::Failure;
use crate::latency::Latencies;
use crate::outcomes::Outcomes;
use crate::worker::SHADOW_WORKER;
use crate::{connect, report};

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// For tasks of an open loop that were due, to be sent after the time is over.
const LAST_SENDS: Duration = Duration::from_millis(20);

/// A run.
pub(super) struct Load<'a> {
    client: &'a Client,
    action: ActionName,
    payload: Bytes,
    ttl: Duration,
    is_shadow: bool,
    rate: Option<f64>,
    limit: usize,
    length: Duration,
    start: Instant,
    /// The time is over, or no task can be sent any more.
    over: CancellationToken,
    in_flight: Cell<u64>,
    tally: RefCell<Tally>,
}

/// What came of it.
pub(super) struct Tally {
    pub(super) outcomes: Outcomes,
    /// Of the tasks that ended `ok`.
    pub(super) latencies: Latencies,
    /// Those that ended `ok` while tasks were sent.
    pub(super) ok_in_time: u64,
    pub(super) sent: u64,
    /// How long tasks were sent.
    pub(super) took: Duration,
    /// Of the first task that did not end `ok`.
    pub(super) first_error: Option<String>,
    /// Why no more could be sent.
    pub(super) failure: Option<Failure>,
}

impl<'a> Load<'a> {
    pub(super) fn new(client: &'a Client, bench: &Bench) -> Self {
        Self {
            client,
            action: bench.action.clone(),
            payload: vec![b'x'; bench.payload as usize].into(),
            ttl: bench.ttl,
            is_shadow: bench.shadow,
            rate: bench.rate,
            limit: bench.in_flight() as usize,
            length: bench.secs,
            start: Instant::now(),
            over: CancellationToken::new(),
            in_flight: Cell::new(0),
            tally: RefCell::new(Tally {
                outcomes: Outcomes::default(),
                latencies: Latencies::new(),
                ok_in_time: 0,
                sent: 0,
                took: Duration::ZERO,
                first_error: None,
                failure: None,
            }),
        }
    }

    /// Sends for the time that was asked for, and waits for the last task's end. When interrupted,
    /// what is in flight is cancelled.
    pub(super) async fn run(&self, interrupted: &CancellationToken) {
        let progress = Progress::new(self.length);
        let send = async {
            match self.rate {
                Some(rate) => self.open_loop(rate).await,
                None => self.closed_loop().await,
            }
            // The last task may end before the time does.
            self.over.cancelled().await;
        };
        tokio::select! {
            () = send => {}
            () = interrupted.cancelled() => {
                self.end_sending();
                // Their handles are dropped with `send`, which cancels them.
                let mut tally = self.tally.borrow_mut();
                tally.outcomes.add_many(Outcome::Cancelled, self.in_flight.get());
            }
            () = self.watch(&progress) => {}
        }
        progress.finish();
    }

    pub(super) fn tally(self) -> Tally {
        self.tally.into_inner()
    }

    async fn closed_loop(&self) {
        let lane = async || {
            while !self.over.is_cancelled() {
                self.one(Instant::now()).await;
            }
        };
        let mut lanes: FuturesUnordered<_> = (0..self.limit).map(|_| lane()).collect();
        while lanes.next().await.is_some() {}
    }

    async fn open_loop(&self, rate: f64) {
        let mut schedule = match Schedule::start(self.start, rate, self.length) {
            Ok(schedule) => schedule,
            Err(error) => return self.fail(error.into()),
        };
        let mut tasks = FuturesUnordered::new();
        let mut is_open = true;
        // Those that are due at the end may still be sent, unless there are many.
        let mut closed = pin!(async {
            self.over.cancelled().await;
            if self.tally.borrow().failure.is_none() {
                tokio::time::sleep(LAST_SENDS).await;
            }
        });
        loop {
            tokio::select! {
                biased;
                Some(()) = tasks.next() => {}
                () = &mut closed, if is_open => is_open = false,
                at = schedule.next(), if is_open && tasks.len() < self.limit => match at {
                    Some(at) => tasks.push(self.one(at)),
                    None => is_open = false,
                },
                else => return,
            }
        }
    }

    /// One task, whose latency counts `from` then.
    async fn one(&self, from: Instant) {
        self.in_flight.update(|count| count + 1);
        self.tally.borrow_mut().sent += 1;
        let task = self.client.task(self.action.clone()).body(self.payload.clone()).ttl(self.ttl);
        let end = match task.shadow(self.is_shadow).send().await {
            Ok(handle) => Ok(handle.await),
            Err(error) => connect::end_of(error),
        };
        self.in_flight.update(|count| count - 1);
        match end {
            Ok(end) => self.note(&end, from.elapsed()),
            Err(failure) => self.fail(failure),
        }
    }

    fn note(&self, end: &TaskEnd, took: Duration) {
        let mut tally = self.tally.borrow_mut();
        tally.outcomes.add(end.outcome);
        if end.outcome == Outcome::Ok {
            tally.latencies.record(took);
            tally.ok_in_time += u64::from(!self.over.is_cancelled());
        } else if tally.first_error.is_none() {
            let shadow = if self.is_shadow { SHADOW_WORKER } else { "" };
            let worker = format!("--action {}{shadow}", self.action);
            tally.first_error = Some(report::explain(end, &worker));
        }
    }

    /// Nothing more can be sent.
    fn fail(&self, failure: Failure) {
        self.tally.borrow_mut().failure.get_or_insert(failure);
        self.end_sending();
    }

    fn end_sending(&self) {
        if !self.over.is_cancelled() {
            self.over.cancel();
            self.tally.borrow_mut().took = self.start.elapsed();
        }
    }

    /// Ends the sending when its time is over, and shows how far it is. Never ready.
    async fn watch(&self, progress: &Progress) {
        loop {
            let over = self.start.elapsed();
            if over >= self.length {
                self.end_sending();
            }
            progress.update(over, || self.shown(over));
            let left = self.length.saturating_sub(over);
            let next = if left.is_zero() { SHOWN_EVERY } else { left.min(SHOWN_EVERY) };
            tokio::time::sleep(next).await;
        }
    }

    fn shown(&self, over: Duration) -> String {
        let tally = self.tally.borrow();
        let rate = tally.ok_in_time as f64 / over.min(self.length).as_secs_f64().max(1e-3);
        format!("{rate:.0} tasks/s: {}, {} in flight", tally.outcomes, self.in_flight.get())
    }
}
