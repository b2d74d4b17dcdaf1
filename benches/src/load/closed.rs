//! The closed loop: a task is sent when another has come back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::Caller;
use super::recorder::Recorder;

/// After a failure, so that a peer that fails at once is not called without end.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// Keeps `in_flight` tasks at the peer from now on.
pub(super) fn start<C: Caller>(
    caller: &Rc<C>,
    recorder: &Rc<Recorder>,
    in_flight: u32,
    body: &Bytes,
) {
    for _ in 0..in_flight {
        let (caller, recorder, body) = (caller.clone(), recorder.clone(), body.clone());
        spawn_local(async move {
            while !recorder.is_closed() {
                call(&*caller, &recorder, &body).await;
            }
        });
    }
}

async fn call(caller: &impl Caller, recorder: &Recorder, body: &Bytes) {
    let start = Instant::now();
    let result = caller.call(body.clone()).await;
    let is_ok = result.is_ok();
    recorder.record(start, result);
    if !is_ok {
        tokio::time::sleep(AFTER_ERROR).await;
    }
}
