//! The audit log: who did what, a JSON object a line.
//!
//! Records go to a thread of their own over a queue that is bounded. Whoever records something never
//! waits: what finds the queue full, or can't be written, is lost, which is counted, and written down
//! as soon as something can be written again.

mod event;
mod line;
mod target;
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::clock::Clock;
use super::log::Budget;

pub(super) use event::{Event, Kind};
use line::Record;
pub(super) use target::Target;
use writer::Writer;

/// Records that may wait for the disk. Each has some hundred bytes, and 5 KiB at most.
const QUEUE_RECORDS: usize = 4_096;

/// The audit log of a broker; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: SyncSender<Entry>,
    state: Arc<State>,
    clock: Clock,
    /// Whoever can reach the broker can be refused, as often as it likes.
    refusals: Mutex<Budget>,
}

/// What the thread shares with those who record.
#[derive(Debug, Default)]
struct State {
    /// Whether records are wanted.
    is_on: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
    /// Where to write from now on.
    next: Mutex<Option<Option<Target>>>,
}

/// What goes through the queue.
#[derive(Debug)]
enum Entry {
    Record(Box<Record>),
    /// There is another target, or something was lost: look.
    Look,
    End,
}

/// How many records there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) written: u64,
    pub(super) lost: u64,
}

impl Audit {
    /// Starts the thread, which writes to `target`, if there is one.
    pub(super) fn start(target: Option<Target>) -> io::Result<(Self, JoinHandle<()>)> {
        Self::with_room(target, QUEUE_RECORDS)
    }

    fn with_room(target: Option<Target>, records: usize) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, entries) = sync_channel(records);
        let state = Arc::new(State::default());
        let writer = Writer::new(state.clone());
        let thread = thread::Builder::new()
            .name("mcp-audit".to_owned())
            .spawn(move || writer.run(&entries))?;
        let (clock, refusals) = (Clock::start(), Mutex::default());
        let audit = Self(Arc::new(Inner { queue, state, clock, refusals }));
        audit.write_to(target);
        Ok((audit, thread))
    }

    /// Whether records are wanted.
    pub(super) fn is_on(&self) -> bool {
        self.0.state.is_on.load(Ordering::Relaxed)
    }

    /// Writes something down, soon. Never blocks.
    pub(super) fn record(&self, event: Event) {
        if !self.is_on() {
            return;
        }
        let now = self.0.clock.now();
        let mut left_out = None;
        if event.kind == Kind::Refuse {
            let mut refusals = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(before) = refusals.line(now.mono) else { return };
            left_out = (before > 0).then_some(before);
        }
        let record = Box::new(Record::new(now.wall_ms, event, left_out));
        match self.0.queue.try_send(Entry::Record(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.0.state.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes to another target from now on; to none: records nothing more.
    pub(super) fn write_to(&self, target: Option<Target>) {
        let is_on = target.is_some();
        *self.0.state.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.0.state.is_on.store(is_on, Ordering::Relaxed);
        // A full queue has the thread look soon anyway.
        let _ = self.0.queue.try_send(Entry::Look);
    }

    pub(super) fn figures(&self) -> Figures {
        let State { written, lost, .. } = &*self.0.state;
        Figures { written: written.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) }
    }

    /// Has the thread end once all is written. Blocks while the queue is full.
    pub(super) fn end(&self) {
        // An error says that it has ended already.
        let _ = self.0.queue.send(Entry::End);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn event(what: &str) -> Event {
        Event::new(Kind::Operator, what)
    }

    #[test]
    fn what_is_recorded_is_written_in_order_and_other_targets_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["a.log", "b.log"].map(|name| dir.path().join(name));
        let (audit, thread) = Audit::start(Some(Target::file(&first).unwrap())).unwrap();
        audit.record(event("one").by("alice").from("127.0.0.1:7".parse().unwrap()));
        audit.record(event("two").refused("no such task"));
        while audit.figures().written < 2 {
            thread::yield_now();
        }
        audit.write_to(Some(Target::file(&second).unwrap()));
        audit.record(event("three"));
        audit.end();
        thread.join().unwrap();
        audit.record(event("too late"));

        let written = lines(&first);
        assert_eq!(written.len(), 2);
        assert_eq!(written[0]["what"], "one");
        assert_eq!(written[0]["identity"], "alice");
        assert_eq!(written[0]["peer"], "127.0.0.1:7");
        assert_eq!(written[0]["outcome"], "ok");
        assert!(written[0]["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(written[1]["outcome"], "refused");
        assert_eq!(written[1]["reason"], "no such task");
        assert_eq!(lines(&second)[0]["what"], "three");
        assert_eq!(audit.figures(), Figures { written: 3, lost: 1 });
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_for_its_owner_and_is_appended_to() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for what in ["one", "two"] {
            let (audit, thread) = Audit::start(Some(Target::file(&path).unwrap())).unwrap();
            audit.record(event(what));
            audit.end();
            thread.join().unwrap();
        }
        assert_eq!(lines(&path).len(), 2);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn nothing_is_recorded_without_a_target() {
        let (audit, thread) = Audit::start(None).unwrap();
        audit.record(event("one"));
        audit.end();
        thread.join().unwrap();
        assert_eq!(audit.figures(), Figures::default());
    }

    #[test]
    fn a_full_queue_loses_records_counts_them_and_says_so_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (gate, target) = target::gated(Target::file(&path).unwrap());
        let (audit, thread) = Audit::with_room(Some(target), 4).unwrap();
        // The thread is in the middle of writing this one.
        audit.record(event("held up"));
        gate.wait_until_reached();
        for number in 0..10 {
            audit.record(event(&format!("{number}")));
        }
        assert_eq!(audit.figures().lost, 6);
        gate.open();
        while audit.figures().written < 5 {
            thread::yield_now();
        }
        audit.record(event("after"));
        audit.end();
        thread.join().unwrap();

        let written = lines(&path);
        let whats: Vec<_> = written.iter().filter_map(|it| it["what"].as_str()).collect();
        assert_eq!(whats, ["held up", "0", "1", "2", "3", "after"]);
        let lost: Vec<_> = written.iter().filter(|it| it["kind"] == "lost").collect();
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0]["count"], 6);
    }

    #[test]
    fn a_flood_of_refusals_is_cut_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (audit, thread) = Audit::start(Some(Target::file(&path).unwrap())).unwrap();
        for _ in 0..1_000 {
            audit.record(Event::new(Kind::Refuse, "connection").refused("too many"));
        }
        audit.end();
        thread.join().unwrap();
        assert!((200..1_000).contains(&lines(&path).len()));
        assert_eq!(audit.figures().lost, 0);
    }
}
