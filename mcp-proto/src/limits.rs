//! Every limit of the protocol, with its reason.

/// Largest header of a frame: what its `u16` length can say, rounded down to whole KiB less one.
pub const MAX_HEADER_BYTES: usize = u16::MAX as usize;

/// Largest body of a frame on a lane. Larger bodies would hold up the small tasks behind them.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// A frame whose body is over the limit, but no longer than this, is read to its end and refused
/// by itself (BODY_TOO_LARGE); beyond it the connection is closed (FRAME_TOO_LARGE).
pub const MAX_DISCARDED_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Longest encoded `Task`: what a header has room for beside the other fields of SEND and ROUTE, so
/// that a task that fits a SEND fits its ROUTE as well.
pub const MAX_TASK_BYTES: usize = MAX_HEADER_BYTES - 255;

/// Longest time to live: 7 days. Also keeps every deadline far from overflow.
pub const MAX_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Longest `task_id`.
pub const MAX_TASK_ID_BYTES: usize = 64;

/// Longest action name.
pub const MAX_ACTION_BYTES: usize = 128;

/// Longest agent, instance, node or session id.
pub const MAX_ID_BYTES: usize = 128;

/// Longest single text value: a content type, tenant, affinity key, label, header or tracestate.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Longest error message; longer ones are cut.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 4096;

/// Most links in an error's cause chain; more are dropped.
pub const MAX_CAUSES: usize = 8;

/// Most labels of a worker, or required by a task.
pub const MAX_LABELS: usize = 64;

/// Most headers of a task or result.
pub const MAX_HEADERS: usize = 64;

/// Most bytes of the keys and values of a result's headers together: DELIVER has them in one frame
/// header with the longest error and trace.
pub const MAX_RESULT_HEADER_BYTES: usize = 8 * 1024;

/// Longest token in HELLO: a signed one with some roles has a few hundred bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// Most actions that one worker serves.
pub const MAX_ACTIONS: usize = 256;

/// Most feature names in HELLO or ACK.
pub const MAX_FEATURES: usize = 64;

/// Most attempts that a task can ask for.
pub const MAX_ATTEMPTS: u32 = 100;

/// Longest wait between two attempts, and longest attempt time-out: an hour.
pub const MAX_RETRY_WAIT_MS: u32 = 60 * 60 * 1000;

/// What a chunk counts besides its body against a window: so that empty ones have a bound, too.
pub const CHUNK_OVERHEAD_BYTES: u64 = 64;

/// Largest window of a stream of chunks: what a broker keeps of one for a client that comes back.
pub const MAX_STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// What a client may send of an input, after SEND, before it has credit. A broker sets room aside for
/// it when it takes the task, so it is a quarter of the largest window.
pub const INPUT_WINDOW_BYTES: u32 = 64 * 1024;

/// Deepest chain of tasks that send tasks.
pub const MAX_DEPTH: u8 = 16;

/// Most attempts (slots + prefetch) of one worker: its PING lists them all, 8 bytes each, in half
/// of a header.
pub const MAX_AGENT_ATTEMPTS: u32 = 4096;

/// Most hops in a trace, and most children in it, those of its children included.
pub const MAX_HOPS: usize = 64;

/// Most bytes of hops and children in a trace.
pub const MAX_TRACE_BYTES: usize = 16 * 1024;

/// Longest explanation of one attempt, so that a trace has room for some of them beside its hops.
pub const MAX_EXPLANATION_BYTES: usize = 4 * 1024;

/// What a broker accepts on a connection, as told in ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame header.
    pub max_header_bytes: u32,
    /// Largest frame body.
    pub max_body_bytes: u32,
    /// Tasks without an outcome that one session may have at once.
    pub max_session_tasks: u32,
    /// Largest slots + prefetch of one worker.
    pub max_agent_attempts: u32,
    /// Longest input that comes in chunks; 0: none may. 1 GiB when not said.
    pub max_input_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_header_bytes: MAX_HEADER_BYTES as u32,
            max_body_bytes: MAX_BODY_BYTES as u32,
            max_session_tasks: 65_536,
            max_agent_attempts: MAX_AGENT_ATTEMPTS,
            max_input_bytes: 1024 * 1024 * 1024,
        }
    }
}
