//! Load in virtual time: tasks that come when they come, and workers that take as long as they take.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use mcp_broker::broker::{ConnectionId, Mono};
use mcp_proto::{AttemptId, ErrorCode, Message, Outcome, Task};

use crate::fixture::{Fixture, task};

/// Something that ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) tenant: String,
    pub(crate) outcome: Outcome,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) sent: Mono,
    pub(crate) ended: Mono,
    /// How long a worker had it.
    pub(crate) service_us: u64,
}

impl Ended {
    pub(crate) fn took_us(&self) -> u64 {
        self.ended.since(self.sent)
    }

    pub(crate) fn waited_us(&self) -> u64 {
        self.took_us() - self.service_us
    }
}

/// A client that sends, and workers that do what they get.
pub(crate) struct Load {
    pub(crate) it: Fixture,
    pub(crate) client: ConnectionId,
    pub(crate) workers: Vec<ConnectionId>,
    /// By the tenant of a task, µs.
    service_us: fn(&str) -> u64,
    /// When attempts end.
    running: BinaryHeap<Reverse<(Mono, AttemptId, usize)>>,
    /// Tasks without an outcome: their tenant, when they were sent, and their service time once
    /// known.
    sent: HashMap<String, (String, Mono, u64)>,
    count: usize,
    pub(crate) ended: Vec<Ended>,
}

impl Load {
    /// Workers with so many slots each.
    pub(crate) fn new(mut it: Fixture, slots: &[u32], service_us: fn(&str) -> u64) -> Self {
        let client = it.client();
        let names = (0..).map(|n| format!("w{n}"));
        let workers = slots.iter().zip(names).map(|(slots, name)| it.worker(&name, *slots));
        let workers = workers.collect();
        let (running, sent) = (BinaryHeap::new(), HashMap::new());
        Self { it, client, workers, service_us, running, sent, count: 0, ended: Vec::new() }
    }

    /// A task of this tenant comes.
    pub(crate) fn send(&mut self, tenant: &str, ttl_ms: u64) {
        self.send_task(Task { tenant: tenant.into(), ..task("t") }, ttl_ms);
    }

    /// A task comes, under a name of its own.
    pub(crate) fn send_task(&mut self, task: Task, ttl_ms: u64) {
        let id = format!("t{}", self.count);
        self.count += 1;
        self.sent.insert(id.clone(), (task.tenant.to_string(), self.it.now.mono, 0));
        let task = Task { id: id.try_into().unwrap(), ..task };
        self.it.send_task(self.client, task, ttl_ms);
        self.look();
    }

    /// Lets time pass, in which workers end what they have.
    pub(crate) fn pass_us(&mut self, us: u64) {
        let end = self.it.now.mono + us;
        while let Some(Reverse((at, attempt, worker))) = self.running.peek().copied()
            && at <= end
        {
            self.running.pop();
            self.go_to(at);
            self.it.result(self.workers[worker], attempt);
            self.look();
        }
        self.go_to(end);
    }

    /// Lets workers end all that there is.
    pub(crate) fn drain(&mut self) {
        while let Some(Reverse((at, ..))) = self.running.peek().copied() {
            self.pass_us(at.since(self.it.now.mono));
        }
    }

    /// Stops at whatever the core has to do.
    fn go_to(&mut self, end: Mono) {
        while let Some(at) = self.it.core.poll_timeout().filter(|at| *at <= end) {
            self.it.now.mono = self.it.now.mono.max(at);
            self.it.core.handle_timeout(self.it.now);
            self.look();
        }
        self.it.now.mono = end;
    }

    /// Looks at what the core sent.
    fn look(&mut self) {
        self.it.collect();
        for worker in 0..self.workers.len() {
            while let Some((message, _)) = self.it.next_for(self.workers[worker]) {
                match message {
                    Message::Route(route) => {
                        let task = route.task.decode().unwrap();
                        let service_us = (self.service_us)(&task.tenant);
                        let at = self.it.now.mono + service_us;
                        self.running.push(Reverse((at, route.attempt_id, worker)));
                        self.sent.get_mut(task.id.as_str()).unwrap().2 = service_us;
                    }
                    Message::Ping(ping) => {
                        self.it.give(self.workers[worker], Message::Pong(ping.seq));
                    }
                    Message::Cancel(_) => {}
                    other => panic!("a worker got {other:?}"),
                }
            }
        }
        while let Some((message, _)) = self.it.next_for(self.client) {
            let Message::Deliver(deliver) = message else { panic!("a client got {message:?}") };
            let (tenant, sent, service_us) = self.sent.remove(deliver.task_id.as_str()).unwrap();
            self.ended.push(Ended {
                tenant,
                outcome: deliver.outcome,
                code: deliver.error.map(|error| error.code),
                sent,
                ended: self.it.now.mono,
                service_us,
            });
        }
    }

    /// What of a tenant ended ok.
    pub(crate) fn ok_of<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = &'a Ended> {
        self.ended.iter().filter(move |it| it.tenant == tenant && it.outcome == Outcome::Ok)
    }
}

/// The value that this part of them does not pass.
pub(crate) fn quantile(values: impl Iterator<Item = u64>, part: f64) -> u64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values[((values.len() - 1) as f64 * part) as usize]
}
