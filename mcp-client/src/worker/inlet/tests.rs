use super::*;

fn inlet() -> Inlet {
    Inlet::new(InputLength::Unknown)
}

fn chunk(it: &Inlet, seq: u32, bytes: usize) {
    it.chunk(seq, false, Bytes::from(vec![seq as u8; bytes]));
}

/// What there is to read: the length of each part, what the broker is told, and the end.
#[allow(clippy::type_complexity)]
fn read(it: &Inlet) -> (Vec<usize>, Vec<Told>, Option<Result<(), InputError>>) {
    let (mut parts, mut told) = (Vec::new(), Vec::new());
    loop {
        let (part, tell) = it.poll(&mut Context::from_waker(Waker::noop()));
        told.extend(tell);
        match part {
            Poll::Ready(Some(Ok(part))) => parts.push(part.len()),
            Poll::Ready(Some(Err(error))) => return (parts, told, Some(Err(error))),
            Poll::Ready(None) => return (parts, told, Some(Ok(()))),
            Poll::Pending => return (parts, told, None),
        }
    }
}

#[test]
fn parts_come_in_order_once_and_to_an_end() {
    let it = inlet();
    chunk(&it, 0, 10);
    chunk(&it, 1, 20);
    chunk(&it, 0, 10);
    assert_eq!(read(&it).0, [10, 20]);
    it.chunk(2, true, Bytes::new());
    chunk(&it, 3, 10);
    assert_eq!(read(&it), (vec![], vec![], Some(Ok(()))));
}

#[test]
fn credit_is_given_when_a_part_of_the_window_was_read_and_when_more_is_waited_for() {
    let it = inlet();
    for seq in 0..10 {
        chunk(&it, seq, 16 * 1024);
    }
    let (parts, told, end) = read(&it);
    assert_eq!((parts.len(), end), (10, None));
    let counted = 16 * 1024 + CHUNK_OVERHEAD_BYTES;
    let at = |next_seq: u32| Told {
        next_seq,
        limit_bytes: WINDOW_BYTES + u64::from(next_seq) * counted,
    };
    assert_eq!(told, [at(4), at(8), at(10)]);
    assert_eq!(it.told(), at(10));
    // Nothing is new.
    assert_eq!(read(&it).1, []);
}

#[test]
fn what_is_missing_or_too_much_is_an_error() {
    let it = inlet();
    chunk(&it, 1, 1);
    assert_eq!(read(&it).2, Some(Err(InputError::Broken)));
    let it = inlet();
    chunk(&it, 0, WINDOW_BYTES as usize);
    assert_eq!(read(&it).2, Some(Err(InputError::Broken)));
}

#[test]
fn an_attempt_that_is_over_has_no_more_input() {
    let it = inlet();
    chunk(&it, 0, 1);
    it.end();
    chunk(&it, 1, 1);
    assert_eq!(read(&it), (vec![], vec![], Some(Err(InputError::Over))));
}
