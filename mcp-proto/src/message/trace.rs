//! The context trace: what happened to a task on its way.

use bytestring::ByteString;
use prost::Message as _;

use super::field::wire_enum;
use crate::generated as wire;
use crate::id::NodeId;
use crate::limits::{MAX_HOPS, MAX_TRACE_BYTES};

wire_enum! {
    /// How an attempt ended.
    HopEvent {
        /// The worker finished it: ok, or the handler's error.
        Completed = 1, "completed";
        /// The worker handed it back without starting it.
        Nacked = 2, "nacked";
        /// The worker was lost while it held it.
        WorkerLost = 3, "worker_lost";
        /// It was still running when the task expired.
        Expired = 4, "expired";
        /// It was still running when the task was cancelled.
        Cancelled = 5, "cancelled";
    }
}

/// What happened to a task: a hop for each attempt, oldest first.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct ContextTrace {
    /// The broker that took the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_id: Option<NodeId>,
    /// From the arrival of SEND to the outcome, µs by the broker's clock.
    pub total_us: u64,
    /// µs in the broker's queue after the last hop; all the time when there is none.
    pub queue_us: u64,
    /// The attempts. At most [`MAX_HOPS`] and [`MAX_TRACE_BYTES`] on the wire.
    pub hops: Vec<Hop>,
    /// Whether the oldest hops were left out to keep to that.
    pub truncated: bool,
}

/// One attempt. Its four durations add up to its share of the total.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Hop {
    /// The worker.
    pub node_id: NodeId,
    /// How it ended.
    pub event: HopEvent,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Waited in the broker's queue before this attempt, µs.
    pub queue_us: u64,
    /// From ROUTE to the attempt's end by the broker's clock, less the worker's two, µs.
    pub network_us: u64,
    /// Waited inside the worker, as it reports, µs.
    pub worker_queue_us: u64,
    /// In the handler, as the worker reports, µs.
    pub work_us: u64,
    /// The policy that chose the worker.
    pub policy: ByteString,
    /// Workers with a free slot that it chose among.
    pub candidates: u32,
    /// Why there is another attempt after this one, or why this one did not end well.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: ByteString,
}

impl ContextTrace {
    pub(super) fn from_wire(it: wire::ContextTrace) -> Self {
        Self {
            broker_id: NodeId::from_bytes(it.broker_id).ok(),
            total_us: it.total_us,
            queue_us: it.queue_us,
            truncated: it.truncated || it.hops.len() > MAX_HOPS,
            hops: it.hops.into_iter().take(MAX_HOPS).filter_map(Hop::from_wire).collect(),
        }
    }

    pub(super) fn to_wire(&self) -> wire::ContextTrace {
        let mut kept: Vec<wire::Hop> = Vec::with_capacity(self.hops.len().min(MAX_HOPS));
        let mut bytes = 0;
        for hop in self.hops.iter().rev().take(MAX_HOPS).map(Hop::to_wire) {
            bytes += hop.encoded_len();
            if bytes > MAX_TRACE_BYTES {
                break;
            }
            kept.push(hop);
        }
        kept.reverse();
        wire::ContextTrace {
            broker_id: self.broker_id.as_ref().map(NodeId::to_bytes).unwrap_or_default(),
            total_us: self.total_us,
            queue_us: self.queue_us,
            truncated: self.truncated || kept.len() < self.hops.len(),
            hops: kept,
        }
    }
}

impl Hop {
    fn from_wire(it: wire::Hop) -> Option<Self> {
        Some(Self {
            node_id: NodeId::from_bytes(it.node_id).ok()?,
            event: HopEvent::from_wire(it.event)?,
            attempt: it.attempt,
            queue_us: it.queue_us,
            network_us: it.network_us,
            worker_queue_us: it.worker_queue_us,
            work_us: it.work_us,
            policy: ByteString::try_from(it.policy).unwrap_or_default(),
            candidates: it.candidates,
            reason: ByteString::try_from(it.reason).unwrap_or_default(),
        })
    }

    fn to_wire(&self) -> wire::Hop {
        wire::Hop {
            node_id: self.node_id.to_bytes(),
            event: self.event.to_wire(),
            attempt: self.attempt,
            queue_us: self.queue_us,
            network_us: self.network_us,
            worker_queue_us: self.worker_queue_us,
            work_us: self.work_us,
            policy: self.policy.as_bytes().clone(),
            candidates: self.candidates,
            reason: self.reason.as_bytes().clone(),
        }
    }
}
