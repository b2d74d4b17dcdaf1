//! The client SDK of MCP, the **Model Communication Protocol**: send tasks to a fleet of worker
//! agents through a broker, or be one of those workers. (Not Anthropic's Model Context Protocol.)
//!
//! A client:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use mcp_client::{Client, Endpoint};
//!
//! let broker = Endpoint::new("broker.example.com:7447").ca_file("ca.pem")?;
//! let client = Client::builder(broker).connect().await?;
//! let reply = client.task("upper").body("hello").ttl(Duration::from_secs(5)).call().await?;
//! assert_eq!(reply.body, "HELLO");
//! # Ok(()) }
//! ```
//!
//! A worker:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use mcp_client::{Endpoint, HandlerError, Job, Worker};
//!
//! let broker = Endpoint::new("broker.example.com:7447").ca_file("ca.pem")?;
//! let worker = Worker::builder(broker)
//!     .agent_id("upper-1")
//!     .slots(4)
//!     .handler("upper", |job: Job| async move {
//!         let text = String::from_utf8(job.body.to_vec())?;
//!         Ok::<_, HandlerError>(text.to_uppercase())
//!     })
//!     .start()
//!     .await?;
//! worker.run_until_signal(Duration::from_secs(30)).await;
//! # Ok(()) }
//! ```
//!
//! What can be relied on:
//!
//! * Each task ends in exactly one [`TaskEnd`], and nothing hangs: when the broker does not answer,
//!   the SDK itself ends a task (`lost`, or `expired` if it never left) soon after its time to live.
//! * A task that is neither idempotent nor durable is never sent to a worker twice.
//!   [`TaskEnd::executed`] says whether it ran, which decides if sending it again is safe.
//! * A durable task ([`TaskBuilder::delivery`]) that was [accepted](TaskHandle::accepted) is not lost,
//!   whatever ends the broker, its workers or this process, and any process of the same identity can
//!   ask for its [result](Client::result).
//! * Connections are made again by themselves, with back-off; tasks in flight are asked for.
//! * Dropping a future or a handle cancels what it stood for, all the way to the worker; a durable
//!   task goes on.

pub mod actions;
pub mod agents;
pub mod backend;
pub mod backoff;
mod builtin;
mod client;
mod connect;
mod connection;
pub mod conversation;
pub mod credentials;
mod dead_letters;
mod error;
pub mod explain;
pub mod overview;
pub mod pool;
mod record;
mod task;
pub mod tasks;
pub mod worker;

pub use actions::{
    ActionDegraded, ActionInfo, ActionList, ActionQueue, ActionRules, ActionSummary, Breakers,
    Degraded, RulesFrom,
};
pub use agents::{AgentDetails, AgentFilter, AgentInfo, AgentList};
pub use client::{Client, ClientBuilder, Fetched};
pub use connect::Endpoint;
pub use conversation::Conversation;
pub use dead_letters::{DeadLetterFilter, DeadLetterInfo, DeadLetterList, DeadLetterSummary};
pub use error::{CallError, ConnectError, InvalidTask, PartsError, TlsCause};
pub use overview::Overview;
pub use pool::{Pool, PoolConfig, PoolError, PooledClient};
pub use task::{Reply, StreamEvent, TaskBuilder, TaskEnd, TaskHandle, TaskStream};
pub use tasks::{TaskCancelled, TaskFilter, TaskInfo, TaskList, TaskStatus, TaskSummary};
pub use worker::{
    EmitError, Handler, HandlerError, HandlerReply, Input, InputError, Job, Worker, WorkerBuilder,
    WorkerExit, WorkerStats, WorkerStatus,
};

#[cfg(feature = "otlp")]
pub use mcp_telemetry as telemetry;

pub use mcp_proto::{
    ActionName, AgentId, ByteString, Bytes, Child, ContextTrace, Decision, Delivery, ErrorCode,
    ErrorInfo, Executed, ExplainedWorker, Explanation, Hop, HopEvent, Labels, LazyTrace, NodeId,
    Outcome, Priority, Retry, Task, TaskId, TraceContext, TraceId,
};
