//! What one run came to, as `compare.json` has it.

use serde::Serialize;

use super::disk::Disk;
use super::plan::Cell;
use crate::load::{Measured, Mode};
use crate::peers::Peer;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) peer: Peer,
    /// Of the server.
    pub(crate) version: String,
    /// `"closed"` or `"open"`.
    pub(crate) mode: &'static str,
    /// Tasks a second that should be sent; of an open loop.
    pub(crate) rate: Option<f64>,
    /// Of a closed loop.
    pub(crate) in_flight: Option<u32>,
    pub(crate) payload_bytes: usize,
    pub(crate) slots: u32,
    /// Largest UDP payload that path MTU discovery may find; none over TCP.
    pub(crate) mtu: Option<u16>,
    pub(crate) tls: bool,
    /// What the peer has done once it acknowledges a task.
    pub(crate) guarantee: Option<&'static str>,
    /// Where it does that; none without a guarantee.
    pub(crate) file_system: Option<String>,
    /// Of that disk alone, right before the run.
    pub(crate) fdatasync_us: Option<f64>,
    pub(crate) repeat: u32,
    pub(crate) tasks_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// None without a server, or without `/proc`.
    pub(crate) server_cpu_us_per_task: Option<f64>,
    pub(crate) worker_cpu_us_per_task: Option<f64>,
    pub(crate) client_cpu_us_per_task: Option<f64>,
    pub(crate) errors: u64,
    /// Shares of tasks, and the latency within which they were done, µs.
    #[serde(skip)]
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Record {
    pub(crate) fn new(
        peer: Peer,
        version: String,
        disk: Option<Disk>,
        cell: &Cell,
        repeat: u32,
        measured: Measured,
    ) -> Self {
        let (mode, rate, in_flight) = match cell.mode {
            Mode::Closed { in_flight } => ("closed", None, Some(in_flight)),
            Mode::Open { rate } => ("open", Some(rate), None),
        };
        Self {
            peer,
            version,
            mode,
            rate,
            in_flight,
            payload_bytes: cell.payload_bytes,
            slots: cell.slots,
            mtu: peer.mtu(),
            tls: peer.is_tls(),
            guarantee: peer.guarantee(),
            fdatasync_us: disk.as_ref().map(|disk| disk.fdatasync_us),
            file_system: disk.map(|disk| disk.file_system),
            repeat,
            tasks_per_s: measured.tasks_per_s,
            p50_us: measured.latency.p50_us,
            p99_us: measured.latency.p99_us,
            p999_us: measured.latency.p999_us,
            server_cpu_us_per_task: measured.server_cpu_us_per_task,
            worker_cpu_us_per_task: measured.worker_cpu_us_per_task,
            client_cpu_us_per_task: measured.client_cpu_us_per_task,
            errors: measured.errors,
            curve: measured.latency.curve,
        }
    }

    /// Whether it is a run of this cell.
    pub(crate) fn is_of(&self, cell: &Cell) -> bool {
        let is_mode = match cell.mode {
            Mode::Closed { in_flight } => self.in_flight == Some(in_flight),
            Mode::Open { rate } => self.rate == Some(rate),
        };
        is_mode && self.payload_bytes == cell.payload_bytes && self.slots == cell.slots
    }
}
