//! The message broker of MCP, the **Model Communication Protocol**: clients send it tasks over QUIC,
//! and it routes each to a worker agent that has room for it and brings back the one outcome. (Not
//! Anthropic's Model Context Protocol.)
//!
//! Two layers:
//!
//! * [`broker`], the core: a state machine without I/O, clocks or randomness of its own. Every rule
//!   of dispatching is there.
//! * the server around it: QUIC, tasks, timers, certificates, files. Its public face is [`Broker`].
//!
//! The binary `mcp-broker serve` runs one as a process. Inside another program:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), mcp_broker::StartError> {
//! use mcp_broker::Broker;
//!
//! let broker = Broker::builder().start().await?;
//! println!("clients and workers connect to {}", broker.local_addr());
//! println!("and trust {}", broker.ca_pem().unwrap_or_default());
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod broker;
pub mod journal;
mod server;

/// What proves who peers are: tokens and the keys that sign them, certificates and those that issue
/// them.
pub mod auth {
    pub use crate::server::auth::{Audience, Claims, KeySet, SigningKey, TokenError, inspect};
    pub use crate::server::authority::{Issued, Purpose, create_private, issue_private};
}

pub use server::{
    AdminAddr, AuditConfig, AuthConfig, Broker, Builder, ClientCertificates, Config, ConfigError,
    ConsoleConfig, DurableConfig, Key, Layers, LimitsConfig, Loaded, LogConfig, LogFormat,
    MemoryJournal, Origin, Origins, Problem, Reloaded, StartError, TelemetryConfig, TimingConfig,
    Tls, TlsConfig, TlsError, default_state_dir,
};
