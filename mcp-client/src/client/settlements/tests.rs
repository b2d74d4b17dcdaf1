use mcp_proto::Frame;

use super::*;

fn id(number: usize) -> TaskId {
    TaskId::try_from(format!("t{number}")).unwrap()
}

fn settled(wire: &mut Vec<Frame>) -> Vec<TaskId> {
    let id = |frame: Frame| match frame.message {
        Message::Settle(id) => id,
        other => panic!("{other:?}"),
    };
    wire.drain(..).map(id).collect()
}

#[test]
fn what_is_settled_is_told_at_once_or_at_the_next_connection() {
    let (mut it, mut wire) = (Settlements::default(), Vec::new());
    it.settle(id(1), Some(&mut wire));
    assert_eq!(settled(&mut wire), [id(1)]);
    assert!(it.are_sent());
    it.disconnected();
    assert!(!it.are_sent());
    it.settle(id(2), None::<&mut Vec<Frame>>);
    it.settle(id(3), None::<&mut Vec<Frame>>);
    it.connected(&mut wire);
    assert_eq!(settled(&mut wire), [id(2), id(3)]);
    assert!(it.are_sent());
    it.disconnected();
    it.connected(&mut wire);
    assert!(wire.is_empty() && !it.are_sent());
}

#[test]
fn without_a_connection_the_oldest_are_forgotten() {
    let (mut it, mut wire) = (Settlements::default(), Vec::new());
    for number in 0..MAX_WAITING + 2 {
        it.settle(id(number), None::<&mut Vec<Frame>>);
    }
    it.connected(&mut wire);
    let settled = settled(&mut wire);
    assert_eq!((settled.len(), &settled[0]), (MAX_WAITING, &id(2)));
}
