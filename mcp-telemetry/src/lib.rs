//! What brokers, clients and workers tell of their work to those who operate them: logs as lines of
//! JSON (feature `log`), and spans of tasks for OpenTelemetry (feature `otlp`).

#[cfg(feature = "otlp")]
pub mod export;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
pub mod span;

#[cfg(feature = "otlp")]
pub use export::{Exported, Exporter, InvalidEndpoint, OtlpEndpoint};
#[cfg(feature = "log")]
pub use log::{Format, JsonLines, Level};
#[cfg(feature = "otlp")]
pub use span::{Kind, Span, Value};
