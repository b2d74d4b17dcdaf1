//! One measurement: small tasks at a fixed rate, and something beside them.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::{Reading, duration};
use crate::load::{Load, Measured, Mode};
use crate::peers::Target;
use crate::peers::mcp::BrokerSettings;
use crate::processes::Process;
use crate::procfs;
use crate::role::Role;

const PAYLOAD_BYTES: usize = 128;
const SLOTS: u32 = 1024;
const WARM_UP: Duration = Duration::from_millis(500);

/// What goes on beside the small tasks.
pub(super) enum Beside {
    Nothing,
    /// A reader of results of so many bytes.
    Large {
        bytes: u64,
    },
    /// Readers that don't read.
    Stalled {
        count: u32,
    },
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Beside::Nothing => f.write_str("nothing"),
            Beside::Large { bytes } => write!(f, "a result of {} MiB", bytes >> 20),
            Beside::Stalled { count } => write!(f, "{count} readers that stopped"),
        }
    }
}

pub(super) struct Case {
    pub(super) beside: Beside,
    pub(super) secs: u64,
}

pub(super) struct Outcome {
    pub(super) tasks: Measured,
    /// Of the large result.
    pub(super) bytes_per_s: Option<f64>,
    /// Resident memory of the broker at the end.
    pub(super) broker_bytes: Option<u64>,
}

pub(super) fn measure(case: &Case, rate: f64) -> Result<Outcome> {
    let mut broker = Process::of(&Role::Broker(BrokerSettings::default()))?;
    let target: Target = broker.hear()?;
    let mut worker =
        Process::of(&Role::Worker { target: target.clone(), slots: SLOTS, prefetch: 0 })?;
    worker.hear::<()>()?;
    let mut parts = Process::of(&Role::PartsWorker { target: target.clone(), slots: SLOTS })?;
    parts.hear::<()>()?;

    let measured = duration(case.secs);
    let reading = match case.beside {
        Beside::Nothing => None,
        Beside::Large { bytes } => {
            Some(Reading::All { bytes, secs: (WARM_UP + measured).as_secs_f64() })
        }
        Beside::Stalled { count } => Some(Reading::Nothing { count }),
    };
    let start = |reading| Process::of(&Role::PartsReader { target: target.clone(), reading });
    let mut reader = reading.map(start).transpose()?;
    if let (Some(reader), Beside::Stalled { .. }) = (&mut reader, &case.beside) {
        reader.hear::<f64>()?;
    }
    let load = Load {
        mode: Mode::Open { rate },
        payload_bytes: PAYLOAD_BYTES,
        warm_up: WARM_UP,
        measured,
        server_pid: Some(broker.pid()),
        worker_pid: Some(worker.pid()),
    };
    let mut client = Process::of(&Role::Client { target: target.clone(), load })?;
    let tasks = client.hear()?;
    let broker_bytes = procfs::resident_bytes(broker.pid());
    let bytes_per_s = match (&mut reader, &case.beside) {
        (Some(reader), Beside::Large { .. }) => Some(reader.hear()?),
        _ => None,
    };
    Ok(Outcome { tasks, bytes_per_s, broker_bytes })
}
