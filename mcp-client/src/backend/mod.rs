//! Ready-made handlers, each a feature.

#[cfg(all(feature = "exec", unix))]
pub mod exec;
