use mcp_proto::Frame;

use super::*;

fn outgoing(keeps_all: bool) -> Outgoing {
    Outgoing::new(TaskId::try_from("t").unwrap(), InputLength::Unknown, keeps_all, 65_536)
}

/// Number, length and whether it is the last, of each chunk.
fn sent(out: &mut Vec<Frame>) -> Vec<(u32, usize, bool)> {
    let of = |frame: Frame| match frame.message {
        Message::Chunk(Chunk { of: Subject::Task(_, 0), seq, gap: None, last }) => {
            (seq, frame.body.len(), last)
        }
        other => panic!("{other:?}"),
    };
    out.drain(..).map(of).collect()
}

/// Pushes as much as it takes.
fn push(it: &mut Outgoing, bytes: usize, out: &mut Vec<Frame>) -> (Pushed, usize) {
    let mut part = Bytes::from(vec![7; bytes]);
    loop {
        match it.push(&mut part, false, out) {
            Pushed::Some if part.is_empty() => return (Pushed::Some, 0),
            Pushed::Some => {}
            other => return (other, part.len()),
        }
    }
}

#[test]
fn as_much_is_sent_as_there_is_credit_for_in_small_frames() {
    let (mut it, mut out) = (outgoing(false), Vec::new());
    assert_eq!(push(&mut it, 10, &mut out), (Pushed::NoCredit, 10));
    it.begin(&mut out);
    let (pushed, rest) = push(&mut it, 100_000, &mut out);
    assert_eq!((pushed, rest), (Pushed::NoCredit, 100_000 - 65_536 + 4 * 64));
    let chunks = sent(&mut out);
    assert_eq!(
        chunks[..3],
        [(0, CHUNK_BYTES, false), (1, CHUNK_BYTES, false), (2, CHUNK_BYTES, false)]
    );
    it.credit(4, 65_536 + 64, &mut out);
    // Only for an empty one.
    assert_eq!(push(&mut it, 1, &mut out), (Pushed::NoCredit, 1));
    assert_eq!(it.push(&mut Bytes::new(), true, &mut out), Pushed::Some);
    assert_eq!(sent(&mut out), [(4, 0, true)]);
    assert_eq!(it.push(&mut Bytes::new(), true, &mut out), Pushed::Over);
}

#[test]
fn after_a_break_it_goes_on_where_the_broker_is() {
    let (mut it, mut out) = (outgoing(false), Vec::new());
    it.begin(&mut out);
    for _ in 0..3 {
        push(&mut it, 10, &mut out);
    }
    it.credit(1, 100_000, &mut out);
    assert!(!it.can_begin());
    sent(&mut out);
    it.interrupt();
    assert_eq!(push(&mut it, 10, &mut out).0, Pushed::NoCredit);
    it.credit(2, 100_000, &mut out);
    assert_eq!(sent(&mut out), [(2, 10, false)]);
    assert_eq!(it.push(&mut Bytes::from_static(b"end"), true, &mut out), Pushed::Some);
    assert_eq!(sent(&mut out), [(3, 3, true)]);
    // What counts before it counts still.
    it.interrupt();
    it.credit(3, 3 * 74 + 66, &mut out);
    assert_eq!(sent(&mut out), []);
    it.credit(3, 3 * 74 + 67, &mut out);
    assert_eq!(sent(&mut out), [(3, 3, true)]);
}

#[test]
fn one_that_is_kept_whole_begins_again() {
    let (mut it, mut out) = (outgoing(true), Vec::new());
    it.begin(&mut out);
    push(&mut it, 60_000, &mut out);
    it.credit(4, 200_000, &mut out);
    push(&mut it, 60_000, &mut out);
    let all = sent(&mut out);
    assert!(it.can_begin());
    it.begin(&mut out);
    let first = sent(&mut out);
    assert!(first.len() < all.len() && all.starts_with(&first));
    // Nothing new before the rest was sent again.
    assert_eq!(push(&mut it, 10, &mut out), (Pushed::NoCredit, 10));
    it.credit(4, 200_000, &mut out);
    assert_eq!(sent(&mut out), all[first.len()..]);
}

#[test]
fn who_feeds_it_learns_that_it_is_over() {
    let (mut it, mut out) = (outgoing(false), Vec::new());
    let signal = it.signal();
    it.begin(&mut out);
    it.stop();
    assert_eq!(push(&mut it, 10, &mut out).0, Pushed::Over);
    it.credit(0, 1_000_000, &mut out);
    assert!(signal.is_over() && out.is_empty());
    let it = outgoing(false);
    let signal = it.signal();
    drop(it);
    assert!(signal.is_over());
}
