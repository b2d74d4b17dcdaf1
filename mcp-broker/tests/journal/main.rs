//! `mcp-broker journal`, on real directories.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use bytes::BytesMut;
use mcp_broker::broker::{
    AcceptedTask, DeadLetter, EndedTask, Identity, Journal as _, Record, SettledTask, TaskName,
};
use mcp_broker::journal::{Directory, Log, SegmentJournal};
use mcp_proto::json::JsonTask;
use mcp_proto::{
    Deliver, Delivery, ErrorCode, ErrorInfo, Executed, Outcome, Payload, Task, TaskId,
};
use serde_json::Value;

/// 2100.
const FAR_WALL_MS: u64 = 4_102_444_800_000;
/// 2020.
const PAST_WALL_MS: u64 = 1_577_836_800_000;

fn name(id: &str) -> TaskName {
    TaskName { identity: Identity::anonymous(), task_id: TaskId::try_from(id).unwrap() }
}

fn payload(id: &str, content_type: &str, body: &[u8]) -> Payload {
    let mut task = Task::new(id.try_into().unwrap(), "upper".try_into().unwrap());
    task.content_type = content_type.into();
    task.delivery = Delivery::Durable;
    Payload::new(&task.encode(), body.to_vec().into(), &mut BytesMut::new())
}

fn pending(id: &str, content_type: &str, body: &[u8]) -> Record {
    let task = AcceptedTask {
        payload: payload(id, content_type, body),
        received_wall_ms: PAST_WALL_MS,
        start_wall_ms: PAST_WALL_MS,
        deadline_wall_ms: FAR_WALL_MS,
    };
    Record::Accepted(name(id), task)
}

fn deliver(id: &str, outcome: Outcome) -> Box<Deliver> {
    let failed = || Box::new(ErrorInfo::new(ErrorCode::HandlerFailed, "it broke"));
    let error = (outcome != Outcome::Ok).then(failed);
    Box::new(Deliver {
        error,
        attempt: 2,
        ..Deliver::new(id.try_into().unwrap(), outcome, Executed::Yes)
    })
}

/// One of each, in the state directory's journal, each synced by itself.
fn records() -> Vec<Record> {
    let mut expired = pending("expired", "text/plain", b"late");
    if let Record::Accepted(_, task) = &mut expired {
        task.deadline_wall_ms = PAST_WALL_MS + 1;
    }
    vec![
        pending("json", "application/json", b"{\"a\": 1.50}"),
        pending("text", "text/plain", "grüße\n".as_bytes()),
        pending("binary", "application/octet-stream", &[0xff, 0]),
        expired,
        Record::Ended(
            name("ended"),
            EndedTask {
                fingerprint: 1,
                deliver: deliver("ended", Outcome::Ok),
                body: "RESULT".into(),
                ended_wall_ms: PAST_WALL_MS,
            },
        ),
        Record::Settled(
            name("settled"),
            SettledTask { fingerprint: 1, executed: Executed::Yes, settled_wall_ms: PAST_WALL_MS },
        ),
        Record::Dead(
            name("dead"),
            DeadLetter {
                payload: payload("dead", "text/plain", b"poison"),
                deliver: deliver("dead", Outcome::Failed),
                ttl_ms: 60_000,
                attempts: 3,
                died_wall_ms: PAST_WALL_MS,
            },
        ),
        pending("last", "text/plain", b"x"),
    ]
}

struct State {
    dir: tempfile::TempDir,
}

/// A process that another test is just starting has, for a moment, all files that this one has open: so
/// a directory that was in use a moment ago may still be.
fn directory(path: &Path) -> Directory {
    loop {
        match Directory::open(path) {
            Ok(directory) => return directory,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

impl State {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) =
            SegmentJournal::open(directory(&dir.path().join("journal"))).unwrap();
        for record in records() {
            journal.append(&record).unwrap();
            journal.sync().unwrap();
        }
        Self { dir }
    }

    fn directory(&self) -> Directory {
        directory(&self.journal())
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn segment(&self) -> PathBuf {
        self.journal().join("0000000000000001.seg")
    }

    /// Where the record begins that has this text.
    fn change(&self, text: &str) {
        let mut bytes = fs::read(self.segment()).unwrap();
        let at = bytes.windows(text.len()).position(|it| it == text.as_bytes()).unwrap();
        bytes[at] ^= 1;
        fs::write(self.segment(), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.dir.path(), args)
    }
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.lines().iter().map(|line| line["task_id"].as_str().unwrap().to_owned()).collect()
    }
}

fn run(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-broker"));
    command.arg("journal").arg(args[0]).arg(dir).args(&args[1..]);
    let Output { status, stdout, stderr } =
        command.env_remove("MCP_STATE").stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

#[test]
fn a_sound_journal_is_checked_listed_and_left_alone() {
    let state = State::new();
    let before = fs::read(state.segment()).unwrap();
    let checked = state.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stdout.contains("5 pending tasks, 1 ended, 1 settled, 1 dead letter"));
    assert!(checked.stdout.ends_with("\nsound\n"), "{}", checked.stdout);
    assert!(!checked.stdout.contains("in use"));
    // The journal's own directory will do.
    assert_eq!(run(&state.journal(), &["check"]).stdout, checked.stdout);

    let listed = state.run(&["ls"]);
    let rows: Vec<Vec<_>> =
        listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..4], ["TASK", "STATE", "ACTION", "AGE"]);
    assert_eq!(rows[1][..3], ["json", "pending", "upper"]);
    assert_eq!(rows[5][..2], ["ended", "ended"]);
    assert!(listed.stdout.contains("failed: HANDLER_FAILED"), "{}", listed.stdout);

    let listed = state.run(&["ls", "--json", "--only", "dead", "--only", "settled"]);
    let [settled, dead] = &listed.lines()[..] else { panic!("{}", listed.stdout) };
    assert_eq!((&settled["state"], &settled["executed"]), (&"settled".into(), &"yes".into()));
    assert_eq!((&dead["state"], &dead["attempts"]), (&"dead".into(), &3.into()));
    assert!(settled.get("deadline_in_ms").is_none());
    assert_eq!(fs::read(state.segment()).unwrap(), before);
}

#[test]
fn tasks_are_exported_in_the_form_that_is_sent() {
    let state = State::new();
    let exported = state.run(&["export"]);
    assert_eq!(exported.code, Some(0), "{}", exported.stderr);
    assert!(exported.stderr.contains("8 records\n1 is not in the form"), "{}", exported.stderr);
    let lines: Vec<_> = exported.stdout.lines().collect();
    let sent = |line: &str| JsonTask::from_json(line).unwrap();
    let json = sent(lines[0]);
    assert_eq!((json.task.id.as_str(), &json.body[..]), ("json", &b"{\"a\":1.50}"[..]));
    assert_eq!(json.task.delivery, Delivery::Durable);
    assert!(lines[0].contains("\"x-state\":\"pending\",\"x-identity\":\"anonymous\""));
    assert_eq!(sent(lines[1]).body, "grüße\n".as_bytes());
    let values = exported.lines();
    assert_eq!(values[2]["x-payload_base64"], "/wA=");
    assert!(JsonTask::from_json(lines[2]).is_err());
    assert_eq!(sent(lines[3]).ttl_ms, 1, "it expires at once");
    let ended = ("RESULT", "ok", "ended");
    let told = |key: &str| values[4][key].as_str().unwrap();
    assert_eq!((told("body"), told("outcome"), told("x-state")), ended);
    assert_eq!(values[5]["x-state"], "settled");
    let dead = sent(lines[6]);
    assert_eq!((&dead.body[..], dead.ttl_ms), (&b"poison"[..], 60_000));
    assert_eq!(values[6]["x-error"]["code"], "HANDLER_FAILED");

    let pending = state.run(&["export", "--only", "pending"]);
    assert_eq!(pending.ids(), ["json", "text", "binary", "expired", "last"]);
}

#[test]
fn of_a_damaged_journal_all_is_exported_but_what_is_damaged() {
    let state = State::new();
    state.change("poison");
    let damaged = fs::read(state.segment()).unwrap();
    let checked = state.run(&["check"]);
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    assert!(checked.stdout.contains("DAMAGED: segment 0000000000000001: "), "{}", checked.stdout);
    assert!(checked.stdout.contains("mcp-broker journal export "), "{}", checked.stdout);
    let exported = state.run(&["export"]);
    assert_eq!(exported.code, Some(1));
    let ids = ["json", "text", "binary", "expired", "ended", "settled", "last"];
    assert_eq!(exported.ids(), ids);
    assert!(exported.stderr.contains("NOT EXPORTED: segment 0000000000000001: bytes "));
    assert_eq!(state.run(&["ls"]).code, Some(1));
    assert_eq!(fs::read(state.segment()).unwrap(), damaged);
}

#[test]
fn a_segment_without_its_header_or_its_beginning_is_exported_from_the_next_entry_on() {
    for lost in [1, 27, 40] {
        let state = State::new();
        let mut bytes = fs::read(state.segment()).unwrap();
        bytes[..lost].fill(0);
        fs::write(state.segment(), bytes).unwrap();
        let exported = state.run(&["export"]);
        assert_eq!(exported.code, Some(1));
        let is_first_lost = lost > 28;
        assert_eq!(exported.ids().len(), 8 - usize::from(is_first_lost), "{}", exported.stderr);
        assert!(exported.stderr.contains("does not begin as a segment"), "{}", exported.stderr);
    }
}

#[test]
fn an_end_that_was_not_synced_is_nothing_wrong() {
    let state = State::new();
    let length = fs::metadata(state.segment()).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(state.segment()).unwrap();
    file.set_len(length - 1).unwrap();
    let checked = state.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("were never synced; the next start drops them"));
    assert_eq!(state.run(&["export", "--only", "pending"]).ids().len(), 4);
}

#[test]
fn what_is_no_record_and_a_missing_segment_are_told() {
    let state = State::new();
    for _ in 0..2 {
        let (mut log, ..) = Log::open(state.directory()).unwrap();
        log.put(b"\x09what", b"is this").unwrap();
        log.sync().unwrap();
    }
    let checked = state.run(&["check"]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.stdout.contains("the entry at byte 28 is no record"), "{}", checked.stdout);
    fs::remove_file(state.journal().join("0000000000000002.seg")).unwrap();
    let exported = state.run(&["export"]);
    assert_eq!((exported.code, exported.ids().len()), (Some(1), 8));
    let missing = "NOT EXPORTED: segment 0000000000000002 is missing";
    assert!(exported.stderr.contains(missing), "{}", exported.stderr);
}

#[test]
fn one_in_use_is_looked_at_and_says_so() {
    let state = State::new();
    let (mut journal, _) = SegmentJournal::open(state.directory()).unwrap();
    journal.append(&pending("more", "text/plain", b"x")).unwrap();
    journal.sync().unwrap();
    let checked = state.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("in use: a broker writes to it"), "{}", checked.stdout);
    assert_eq!(state.run(&["export", "--only", "pending"]).ids().len(), 6);
    // It was not disturbed.
    journal.append(&Record::Forgotten(name("more"))).unwrap();
    journal.sync().unwrap();
}

#[test]
fn one_of_an_older_schema_is_looked_at_as_it_is() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journal/schema-1");
    let checked = run(&old, &["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert_eq!(run(&old, &["export"]).ids(), ["waits", "ended", "settled", "dead"]);
    assert_eq!(fs::read_dir(&old).unwrap().count(), 1);
}

#[test]
fn where_there_is_none_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["check", "ls", "export"] {
        let ran = run(dir.path(), &[command]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains("there is no journal in"), "{}", ran.stderr);
    }
}
