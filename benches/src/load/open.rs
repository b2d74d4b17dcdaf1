//! The open loop: tasks are sent at their times, whatever comes back. A latency counts from the
//! time at which the task *should* have been sent: a peer, or a client, that falls behind can't hide
//! it ("coordinated omission").

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::Caller;
use super::recorder::Recorder;
use super::ticker::Ticker;

/// Tasks without a result beyond which sending waits, to bound memory: no peer below its capacity
/// gets there.
const MAX_OUTSTANDING: u64 = 16 * 1024;

/// How long tasks that were sent in time may take to come back.
const SETTLE: Duration = Duration::from_secs(5);

/// Sends `rate` tasks a second from now on.
pub(super) fn start<C: Caller>(caller: &Rc<C>, recorder: &Rc<Recorder>, rate: f64, body: &Bytes) {
    let (caller, recorder, body) = (caller.clone(), recorder.clone(), body.clone());
    spawn_local(async move {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let mut ticker = Ticker::new(interval);
        let start = Instant::now();
        for number in 0u64.. {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            while Instant::now() < due || recorder.outstanding() >= MAX_OUTSTANDING {
                ticker.tick().await;
            }
            if recorder.is_closed() {
                return;
            }
            recorder.sent();
            let (caller, recorder, body) = (caller.clone(), recorder.clone(), body.clone());
            spawn_local(async move {
                let result = caller.call(body).await;
                recorder.came_back();
                recorder.record(due, result);
            });
        }
    });
}

/// Waits for what was sent to come back; what does not has failed.
pub(super) async fn settle(recorder: &Recorder) {
    let limit = Instant::now() + SETTLE;
    while recorder.outstanding() > 0 && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    recorder.give_up();
}
