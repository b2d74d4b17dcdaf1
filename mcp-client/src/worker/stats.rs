//! What a worker did.

/// What a worker did since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct WorkerStats {
    /// Handlers running now, without the parked ones.
    pub running: u32,
    /// Handlers that wait for other tasks now, or for a slot after that.
    pub parked: u32,
    /// Tasks waiting for a slot of its own now.
    pub waiting: u32,
    /// Attempts received.
    pub received: u64,
    /// Attempts that ended `ok`.
    pub ok: u64,
    /// Attempts that ended `failed`, panics included.
    pub failed: u64,
    /// Attempts that ended `expired`.
    pub expired: u64,
    /// Attempts that ended `cancelled`.
    pub cancelled: u64,
    /// Attempts handed back.
    pub nacked: u64,
    /// Attempts that the broker told to abandon after a broken connection.
    pub abandoned: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Connections made, the first included.
    pub connections: u64,
}
