//! However connections come and go and whatever the broker says, each task ends exactly once, and
//! one that may run only once is sent again only after the broker said that it did not take it. A
//! durable one is not lost while it lives, and is cancelled only when it is told to be.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Once,
    Idempotent,
    Durable,
}

#[derive(Debug, Clone)]
enum Op {
    Submit(u8, Kind),
    Connect,
    Disconnect,
    Accept(u8),
    Deliver(u8),
    Refuse(u8),
    Status(u8, bool),
    Cancel(u8),
    Abandon(u8),
    Goaway,
    Pass(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let task = 0..6u8;
    let kind = prop_oneof![Just(Kind::Once), Just(Kind::Idempotent), Just(Kind::Durable)];
    prop_oneof![
        (task.clone(), kind).prop_map(|(t, kind)| Op::Submit(t, kind)),
        Just(Op::Connect),
        Just(Op::Disconnect),
        task.clone().prop_map(Op::Accept),
        task.clone().prop_map(Op::Deliver),
        task.clone().prop_map(Op::Refuse),
        (task.clone(), any::<bool>()).prop_map(|(t, known)| Op::Status(t, known)),
        task.clone().prop_map(Op::Cancel),
        task.prop_map(Op::Abandon),
        Just(Op::Goaway),
        (0..5u8).prop_map(Op::Pass),
    ]
}

proptest! {
    #[test]
    fn each_task_ends_once(ops in proptest::collection::vec(op(), 0..80)) {
        let mut it = Fixture::new();
        let name = |t: u8| format!("t{t}");
        // By number of submission: how often each was sent without the broker refusing it.
        let mut next = 0;
        let mut submitted: HashMap<u32, (Kind, Instant)> = HashMap::new();
        let mut open_sends: HashMap<String, (Kind, u32)> = HashMap::new();
        let mut cancelled = HashSet::new();
        for op in ops {
            match op {
                Op::Submit(t, kind) => {
                    let is_new = it.pending.tasks.get(&id(&name(t))).is_none();
                    if is_new {
                        open_sends.insert(name(t), (kind, 0));
                        cancelled.remove(&name(t));
                        submitted.insert(next, (kind, it.now + TTL));
                        let submission = Submission {
                            is_idempotent: kind == Kind::Idempotent,
                            is_durable: kind == Kind::Durable,
                            ..it.submission(&name(t), next)
                        };
                        it.submit_as(submission);
                        next += 1;
                    }
                }
                Op::Connect if !it.is_connected => it.connect(),
                Op::Disconnect => it.disconnect(),
                Op::Accept(t) if it.is_connected => it.accept(&name(t)),
                Op::Deliver(t) if it.is_connected => it.deliver_ok(&name(t)),
                Op::Refuse(t) if it.is_connected => {
                    let was_sent = it.pending.tasks.get(&id(&name(t)))
                        .is_some_and(|entry| entry.state != State::Unsent);
                    it.refuse_shutting_down(&name(t));
                    if let (true, Some(sends)) = (was_sent, open_sends.get_mut(&name(t))) {
                        sends.1 = 0;
                    }
                }
                Op::Status(t, known) if it.is_connected => {
                    let state = if known { TaskState::Running } else { TaskState::Unknown };
                    it.status(&name(t), state);
                }
                Op::Cancel(t) => {
                    cancelled.insert(name(t));
                    it.cancel(&name(t));
                }
                Op::Abandon(t) => it.abandon(&name(t)),
                Op::Goaway if it.is_connected => it.pending.going_away(),
                Op::Pass(seconds) => it.pass(Duration::from_secs(seconds.into())),
                Op::Connect | Op::Accept(_) | Op::Deliver(_) | Op::Refuse(_) => {}
                Op::Status(..) | Op::Goaway => {}
            }
            for sent in it.sent() {
                let (frame, name) = sent.split_once(' ').unwrap();
                let (kind, sends) = open_sends.get_mut(name).unwrap();
                match frame {
                    "SEND" => {
                        *sends += 1;
                        prop_assert!(*kind != Kind::Once || *sends == 1, "{name}: {sends} times");
                    }
                    "CANCEL" => {
                        prop_assert!(*kind != Kind::Durable || cancelled.contains(name), "{name}");
                    }
                    _ => {}
                }
            }
            for (waiter, outcome, _) in it.ends() {
                let ended = submitted.remove(&waiter);
                prop_assert!(ended.is_some(), "ended twice");
                let lives = ended.filter(|(_, deadline)| it.now < *deadline);
                let is_kept = lives.is_some_and(|(kind, _)| kind == Kind::Durable);
                prop_assert!(!is_kept || outcome != Outcome::Lost, "durable, and lost");
            }
            let on_wire = it.pending.tasks.iter().filter(|it| it.state != State::Unsent);
            prop_assert_eq!(it.pending.on_wire(), if it.is_connected { on_wire.count() } else { 0 });
        }
        it.disconnect();
        it.pass(TTL + DURABLE_END_MARGIN + Duration::from_secs(1));
        it.pass(Duration::from_secs(1));
        it.pass(Duration::from_secs(1));
        for (waiter, ..) in it.ends() {
            prop_assert!(submitted.remove(&waiter).is_some());
        }
        prop_assert!(submitted.is_empty(), "never ended: {submitted:?}");
    }
}
