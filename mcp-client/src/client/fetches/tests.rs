use mcp_proto::{Deliver, Executed, Frame, Outcome};
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::*;

fn id(name: &str) -> TaskId {
    TaskId::try_from(name).unwrap()
}

fn end(name: &str) -> Delivered {
    let deliver = Box::new(Deliver::new(id(name), Outcome::Ok, Executed::Yes));
    Delivered { deliver, body: "result".into() }
}

fn ask(
    it: &mut Fetches,
    wire: &mut Vec<Frame>,
    name: &str,
    waits: bool,
) -> (Receiver<Answer>, bool) {
    let (answer, answered) = oneshot::channel();
    let takes_room = it.ask(&id(name), Asker { waits, answer }, wire);
    (answered, takes_room)
}

fn fetched(wire: &mut Vec<Frame>) -> Vec<TaskId> {
    let id = |frame: Frame| match frame.message {
        Message::Fetch(id) => id,
        other => panic!("{other:?}"),
    };
    wire.drain(..).map(id).collect()
}

fn state(answered: &mut Receiver<Answer>) -> Option<TaskState> {
    match answered.try_recv() {
        Ok(Answer::State(state)) => Some(state),
        Ok(Answer::Ended(end)) => panic!("{end:?}"),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => panic!("closed"),
    }
}

fn is_ended(answered: &mut Receiver<Answer>) -> bool {
    matches!(answered.try_recv(), Ok(Answer::Ended(_)))
}

#[test]
fn who_waits_is_told_the_outcome_and_who_looks_the_state() {
    let (mut it, mut wire) = (Fetches::default(), Vec::new());
    let (mut waits, takes_room) = ask(&mut it, &mut wire, "t", true);
    assert!(takes_room);
    let (mut looks, takes_room) = ask(&mut it, &mut wire, "t", false);
    assert!(!takes_room);
    assert_eq!(fetched(&mut wire), [id("t"), id("t")]);
    assert_eq!(it.status(&id("t"), TaskState::Running), 0);
    assert_eq!(state(&mut looks), Some(TaskState::Running));
    assert_eq!(state(&mut waits), None);
    assert_eq!(it.delivered(&end("other")), 0);
    assert_eq!(it.delivered(&end("t")), 1);
    assert!(is_ended(&mut waits));
    assert!(it.is_empty());
}

#[test]
fn a_task_that_is_not_known_is_told_to_all() {
    let (mut it, mut wire) = (Fetches::default(), Vec::new());
    let (mut waits, _) = ask(&mut it, &mut wire, "t", true);
    let (mut looks, _) = ask(&mut it, &mut wire, "t", false);
    assert_eq!(it.status(&id("t"), TaskState::Unknown), 1);
    for answered in [&mut waits, &mut looks] {
        assert_eq!(state(answered), Some(TaskState::Unknown));
    }
    assert!(it.is_empty());
}

#[test]
fn what_nobody_waits_for_takes_room_until_its_end_or_the_end_of_the_connection() {
    let (mut it, mut wire) = (Fetches::default(), Vec::new());
    for name in ["a", "b"] {
        let (mut looks, _) = ask(&mut it, &mut wire, name, false);
        it.status(&id(name), TaskState::Queued);
        assert_eq!(state(&mut looks), Some(TaskState::Queued));
    }
    assert!(!it.is_empty());
    assert_eq!(it.delivered(&end("a")), 1);
    wire.clear();
    assert_eq!(it.connected(&mut wire), 1);
    assert!(it.is_empty() && wire.is_empty());
}

#[test]
fn who_still_wants_to_know_asks_again_on_the_next_connection() {
    let (mut it, mut wire) = (Fetches::default(), Vec::new());
    let (mut waits, _) = ask(&mut it, &mut wire, "t", true);
    drop(ask(&mut it, &mut wire, "dropped", true));
    it.status(&id("t"), TaskState::Running);
    wire.clear();
    assert_eq!(it.connected(&mut wire), 1);
    assert_eq!(fetched(&mut wire), [id("t")]);
    it.delivered(&end("t"));
    assert!(is_ended(&mut waits));
}
