use std::collections::BTreeMap;

use mcp_proto::{
    ContextTrace, ErrorCode, ErrorInfo, Hop, HopEvent, NodeId, Outcome, ResultHeaders, Task,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

fn payload(id: &str, content_type: &str, body: Vec<u8>) -> Payload {
    let mut task = Task::new(id.try_into().unwrap(), "an.action".try_into().unwrap());
    task.content_type = content_type.into();
    Payload::new(&task.encode(), body.into(), &mut BytesMut::new())
}

fn name() -> impl Strategy<Value = TaskName> {
    ("[!-~]{1,64}", "\\PC{0,40}").prop_map(|(id, identity)| TaskName {
        identity: Identity::new(&identity),
        task_id: id.try_into().unwrap(),
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    // Below and above what is held apart from its task or frame.
    prop_oneof![vec(any::<u8>(), 0..100), (8_000..9_000usize).prop_map(|bytes| vec![7; bytes])]
}

fn trace() -> impl Strategy<Value = ContextTrace> {
    let hop = (any::<u64>(), select(HopEvent::ALL)).prop_map(|(us, event)| Hop {
        node_id: NodeId::try_from("n-1").unwrap(),
        event,
        attempt: 1,
        queue_us: us,
        network_us: 1,
        worker_queue_us: 2,
        work_us: 3,
        policy: "p2c".into(),
        candidates: 4,
        reason: "".into(),
        began_us: 0,
        explanation: None,
    });
    vec(hop, 0..4).prop_map(|hops| ContextTrace { hops, ..ContextTrace::default() })
}

fn deliver(id: TaskId) -> impl Strategy<Value = Box<Deliver>> {
    let outcomes = Outcome::ALL.iter().copied().filter(|it| *it != Outcome::Lost);
    (
        select(outcomes.collect::<Vec<_>>()),
        select(Executed::ALL),
        "[a-z/]{0,20}",
        proptest::option::of(("\\PC{0,50}", select(ErrorCode::ALL))),
        trace(),
        any::<u32>(),
        btree_map("[a-z]{1,9}", "\\PC{0,20}", 0..3),
    )
        .prop_map(move |(outcome, executed, content_type, error, trace, attempt, headers)| {
            Box::new(Deliver {
                content_type: content_type.into(),
                error: error.map(|(text, code)| Box::new(ErrorInfo::new(code, text))),
                trace: trace.into(),
                attempt,
                headers: some(headers),
                ..Deliver::new(id.clone(), outcome, executed)
            })
        })
}

fn some(headers: BTreeMap<String, String>) -> ResultHeaders {
    (!headers.is_empty()).then(|| Box::new(headers))
}

fn settled() -> impl Strategy<Value = SettledTask> {
    (any::<u64>(), select(Executed::ALL), any::<u64>()).prop_map(
        |(fingerprint, executed, settled_wall_ms)| SettledTask {
            fingerprint,
            executed,
            settled_wall_ms,
        },
    )
}

pub(in crate::journal) fn record() -> impl Strategy<Value = Record> {
    let parts = name().prop_flat_map(|name| {
        let deliver = deliver(name.task_id.clone());
        (Just(name), deliver, body(), "[a-z/]{0,20}", any::<[u64; 3]>(), settled(), 0..6u8)
    });
    parts.prop_map(|(name, deliver, body, content_type, [a, b, c], settled, kind)| {
        let payload = payload(name.task_id.as_str(), &content_type, body.clone());
        match kind {
            0 => {
                let task = AcceptedTask {
                    payload,
                    received_wall_ms: a,
                    start_wall_ms: b,
                    deadline_wall_ms: c,
                };
                Record::Accepted(name, task)
            }
            1 => {
                let body = body.into();
                let ended = EndedTask { fingerprint: a, deliver, body, ended_wall_ms: b };
                Record::Ended(name, ended)
            }
            2 => Record::Settled(name, settled),
            3 => Record::Forgotten(name),
            4 => {
                let (ttl_ms, attempts, died_wall_ms) = (a, b as u32, c);
                let letter = DeadLetter { payload, deliver, ttl_ms, attempts, died_wall_ms };
                Record::Dead(name, letter)
            }
            _ => Record::DeadForgotten(name),
        }
    })
}

fn encoded(record: &Record) -> (Vec<u8>, Option<Bytes>) {
    let mut encoded = EncodedRecord::default();
    // What was there before leaves nothing behind.
    encoded.set(&Record::Accepted(
        TaskName { identity: Identity::anonymous(), task_id: "before".try_into().unwrap() },
        AcceptedTask {
            payload: payload("before", "text/plain", vec![1; 10_000]),
            received_wall_ms: 1,
            start_wall_ms: 2,
            deadline_wall_ms: 3,
        },
    ));
    encoded.set(record);
    (encoded.key().to_vec(), encoded.value().map(Bytes::copy_from_slice))
}

proptest! {
    #[test]
    fn a_record_comes_back(record in record()) {
        match encoded(&record) {
            (key, Some(value)) => prop_assert_eq!(decode(&key, &value).unwrap(), record),
            (_, None) => {
                let is_end = matches!(record, Record::Forgotten(_) | Record::DeadForgotten(_));
                prop_assert!(is_end);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(
        key in vec(any::<u8>(), 0..100),
        kind in 0..4u8,
        value in vec(any::<u8>(), 0..300),
    ) {
        let _ = decode(&key, &value.clone().into());
        let likely = [&[kind, 1, b't'][..], b"anonymous"].concat();
        let _ = decode(&likely, &value.into());
    }

    #[test]
    fn a_changed_record_is_a_record_or_refused(
        record in record(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let (mut key, Some(value)) = encoded(&record) else { return Ok(()) };
        let mut value = value.to_vec();
        let _ = decode(&key, &Bytes::copy_from_slice(&value[..cut.index(value.len())]));
        for (at, byte) in changes {
            let at = at.index(key.len() + value.len());
            match at.checked_sub(key.len()) {
                Some(at) => value[at] = byte,
                None => key[at] = byte,
            }
        }
        if let Ok(Record::Ended(_, ended)) = decode(&key, &value.into()) {
            drop(ended.deliver.trace.decode());
        }
    }
}

#[test]
fn what_does_not_fit_its_name_is_refused() {
    let name = |id: &str| TaskName {
        identity: Identity::anonymous(),
        task_id: TaskId::try_from(id).unwrap(),
    };
    let accepted = AcceptedTask {
        payload: payload("a", "text/plain", vec![1]),
        received_wall_ms: 1,
        start_wall_ms: 1,
        deadline_wall_ms: 2,
    };
    let (_, of_a) = encoded(&Record::Accepted(name("a"), accepted));
    let (key_of_b, _) = encoded(&Record::Forgotten(name("b")));
    let refused = decode(&key_of_b, &of_a.clone().unwrap()).unwrap_err();
    assert_eq!(refused.to_string(), "it is under the name of task b, and about task a");
    let (key_of_dead, _) = encoded(&Record::DeadForgotten(name("a")));
    assert!(decode(&key_of_dead, &of_a.unwrap()).is_err());
    assert!(matches!(decode(&key_of_b, &Bytes::new()), Err(InvalidRecord::Unknown)));
    assert!(matches!(decode(&[], &Bytes::new()), Err(InvalidRecord::Key)));
    let mut later = key_of_b.clone();
    later[0] = 9;
    let refused = decode(&later, &Bytes::new()).unwrap_err();
    assert!(refused.to_string().contains("later version"), "{refused}");
}

#[test]
fn the_longest_record_fits_the_log() {
    use mcp_proto::limits::MAX_HEADER_BYTES;

    use crate::journal::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

    let longest = 2 * (MAX_TASK_BYTES + MAX_HEADER_BYTES + MAX_BODY_BYTES) + 1024;
    assert!(longest < MAX_VALUE_BYTES);
    const { assert!(2 + mcp_proto::limits::MAX_TASK_ID_BYTES + 1024 < MAX_KEY_BYTES) };
}
