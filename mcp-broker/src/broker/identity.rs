//! Who a peer is, as its connection proved.

use std::fmt;
use std::sync::Arc;

/// An authenticated identity. Task ids are unique within it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The identity of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name that all peers share where none is asked to prove who it is.
    pub const ANONYMOUS: &str = "anonymous";

    /// The one of that name.
    pub fn anonymous() -> Self {
        Self::new(Self::ANONYMOUS)
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
