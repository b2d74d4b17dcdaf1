//! Ready-made handlers, each a feature.
//!
//! A backend is a [`Handler`](crate::Handler), and there is no trait besides: a handler's job has
//! all that a backend needs. It emits its output as it comes, and its future is dropped when the
//! task is cancelled or expires, which ends the program or request that it stands for.

#[cfg(feature = "http")]
mod client;
#[cfg(all(feature = "exec", unix))]
pub mod exec;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kserve")]
pub mod kserve;
#[cfg(feature = "openai")]
pub mod openai;
#[cfg(test)]
#[allow(dead_code, reason = "not every feature's tests use all of it")]
mod testing;

/// A backend that can't be as it was asked for.
#[cfg(feature = "http")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidBackend {
    /// Which setting.
    pub field: &'static str,
    /// What is wrong with it, to be read after its name.
    pub problem: String,
}

#[cfg(feature = "http")]
impl InvalidBackend {
    fn new(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

/// Longest input of a task that a backend has to hold in memory, since its server takes it as one JSON
/// text: enough for some images in a chat, and little for a machine with a model.
#[cfg(any(feature = "kserve", feature = "openai"))]
const MAX_WHOLE_INPUT_BYTES: usize = 32 * 1024 * 1024;

/// Whether a content type is this media type, whatever its parameters.
#[cfg(any(feature = "kserve", feature = "openai"))]
fn is_of_type(content_type: &str, media_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}
