use std::sync::mpsc;
use std::thread;

use super::*;
use crate::codec::{Frame, Incoming};
use crate::limits::Limits;

/// Takes a few bytes at a time and is blocked every other time.
struct SlowSink {
    written: mpsc::Sender<Bytes>,
    blocks: bool,
}

impl Sink for SlowSink {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<io::Result<usize>> {
        self.blocks = !self.blocks;
        if self.blocks {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let take = chunks[0].len().min(100);
        self.written.send(chunks[0].split_to(take)).unwrap();
        Poll::Ready(Ok(take))
    }

    fn finish(&mut self) {}
}

/// Many threads push under one outer lock, as connections do under the core's, and flush after
/// they let go of it: what arrives has the outer lock's order.
#[test]
fn frames_keep_the_order_in_which_they_were_pushed() {
    const THREADS: usize = 4;
    const FRAMES: u64 = 5_000;
    let (written, wire) = mpsc::channel();
    let lane = Arc::new(Lane::new(SlowSink { written, blocks: false }));
    let counter = Arc::new(Mutex::new(0u64));
    let pushers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (lane, counter) = (lane.clone(), counter.clone());
            thread::spawn(move || {
                for _ in 0..FRAMES {
                    let mut next = counter.lock().unwrap();
                    let body = if *next % 97 == 0 { 9_000 } else { 3 };
                    lane.push(&Message::Pong(*next), &Bytes::from(vec![1; body]));
                    *next += 1;
                    drop(next);
                    lane.flush();
                }
            })
        })
        .collect();
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    while lane.flush() != Flush::Done || lane.queued_bytes() > 0 {}
    drop(lane);

    let mut codec = FrameCodec::new(&Limits::default());
    let mut buffer = BytesMut::new();
    let mut expected = 0;
    for chunk in wire {
        buffer.extend_from_slice(&chunk);
        while let Some(incoming) = codec.decode(&mut buffer).unwrap() {
            match incoming {
                Incoming::Frame(Frame { message: Message::Pong(seq), .. }) => {
                    assert_eq!(seq, expected);
                    expected += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(expected, THREADS as u64 * FRAMES);
}

#[test]
fn a_burst_is_not_copied_while_it_grows() {
    let lane = Lane::new(Gate(Arc::default()));
    let body = Bytes::from(vec![0; 1000]);
    (0..1000).for_each(|seq| lane.push(&Message::Pong(seq), &body));
    let mut chunks = VecDeque::new();
    lock(&lane.buffer).take(&mut chunks);
    assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), lane.queued_bytes());
    // Nor does it lie in many small pieces.
    let most = *BUFFER_BYTES.end();
    assert!(chunks.iter().all(|chunk| chunk.len() <= most));
    assert!(chunks.len() <= 2 * lane.queued_bytes().div_ceil(most), "{}", chunks.len());
}

/// Takes nothing until it is opened.
struct Gate(Arc<AtomicBool>);

impl Sink for Gate {
    fn poll_write(
        &mut self,
        _cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<io::Result<usize>> {
        if !self.0.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let bytes = chunks[0].len();
        chunks[0].clear();
        Poll::Ready(Ok(bytes))
    }

    fn finish(&mut self) {}
}

#[test]
fn who_waits_for_room_is_woken_by_a_write_or_the_end() {
    let is_open = Arc::new(AtomicBool::new(false));
    let lane = Lane::new(Gate(is_open.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(lane.drained(0)).poll(&mut cx).is_ready());

    lane.push(&Message::Pong(1), &Bytes::new());
    assert_eq!(lane.flush(), Flush::Blocked);
    let mut drained = pin!(lane.drained(0));
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    is_open.store(true, Ordering::SeqCst);
    assert_eq!(lane.flush(), Flush::Done);
    assert!(drained.poll(&mut cx).is_ready());

    is_open.store(false, Ordering::SeqCst);
    lane.push(&Message::Pong(2), &Bytes::new());
    let mut drained = pin!(lane.drained(0));
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    lane.close();
    assert!(drained.poll(&mut cx).is_ready());
}

#[test]
fn a_lane_that_another_flush_emptied_still_ends() {
    let is_open = Arc::new(AtomicBool::new(false));
    let lane = Lane::new(Gate(is_open.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    lane.push(&Message::Pong(1), &Bytes::new());
    let mut drive = pin!(lane.drive());
    assert!(drive.as_mut().poll(&mut cx).is_pending());
    lane.finish();
    assert!(drive.as_mut().poll(&mut cx).is_pending());
    is_open.store(true, Ordering::SeqCst);
    lane.flush();
    assert!(drive.poll(&mut cx).is_ready());
}

#[test]
fn what_waits_in_blocked_lanes_is_counted_until_it_is_taken_or_dropped() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let open = |is_open: &Arc<AtomicBool>, yes| is_open.store(yes, Ordering::SeqCst);
    let gates: [Arc<AtomicBool>; 2] = Default::default();
    let [first, second] =
        gates.each_ref().map(|gate| Lane::new(Gate(gate.clone())).counted_in(waiting.clone()));
    let push = |lane: &Lane<Gate>| {
        lane.push(&Message::Pong(1), &Bytes::from(vec![0; 10_000]));
        lane.flush();
        lane.queued_bytes()
    };
    for lane in [&first, &second, &first] {
        push(lane);
        assert_eq!(waiting.load(Ordering::SeqCst), first.queued_bytes() + second.queued_bytes());
    }
    open(&gates[0], true);
    first.flush();
    assert_eq!(waiting.load(Ordering::SeqCst), second.queued_bytes());
    assert_eq!(push(&first), 0);
    drop(second);
    assert_eq!(waiting.load(Ordering::SeqCst), 0);
}

#[test]
fn a_blocked_lane_tells_how_far_it_has_come() {
    let is_open = Arc::new(AtomicBool::new(false));
    let lane = Lane::new(Gate(is_open.clone()));
    let flush = |yes| {
        is_open.store(yes, Ordering::SeqCst);
        lane.push(&Message::Pong(1), &Bytes::new());
        let bytes = lane.queued_bytes() as u64;
        lane.flush();
        bytes
    };
    let mut cx = Context::from_waker(Waker::noop());
    let mut until_blocked = pin!(lane.until_blocked());
    assert!(until_blocked.as_mut().poll(&mut cx).is_pending());
    flush(false);
    let begun = lane.blocked();
    assert_eq!(until_blocked.poll(&mut cx), Poll::Ready(begun.unwrap()));
    flush(false);
    assert_eq!(lane.blocked(), begun);
    let taken_bytes = flush(true);
    assert_eq!(lane.blocked(), None);
    flush(false);
    let again = lane.blocked().unwrap();
    assert!(again.time > begun.unwrap().time);
    assert_eq!(again.taken_bytes, taken_bytes);
}
