//! The shell around the core: QUIC, tasks, clocks, files.

mod admin;
mod audit;
pub(crate) mod auth;
pub(crate) mod authority;
mod builder;
mod clock;
mod config;
mod connection;
mod connections;
mod drivers;
mod epoch;
mod error;
mod frames;
mod journal;
mod listener;
mod log;
mod orders;
mod outgoing;
mod places;
mod quic;
mod random;
mod rates;
mod refused;
mod reload;
mod reset;
mod running;
mod shared;
mod shutdown;
mod slow;
mod state_dir;
mod telemetry;
mod timer;
mod tls;
mod unreachable;

pub use admin::AdminAddr;
pub use builder::Builder;
pub use config::{
    AuditConfig, AuthConfig, ClientCertificates, Config, ConfigError, ConsoleConfig, DurableConfig,
    Key, Layers, LimitsConfig, Loaded, LogConfig, LogFormat, Origin, Origins, Problem,
    TelemetryConfig, TimingConfig, TlsConfig,
};
pub use error::{StartError, TlsError};
pub use journal::MemoryJournal;
pub use reload::Reloaded;
pub use running::Broker;
pub use state_dir::default_state_dir;
pub use tls::Tls;
