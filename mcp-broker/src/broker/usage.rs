//! What each identity has in flight, and how much of it there may be.

use mcp_proto::{ErrorCode, ErrorInfo};

use super::Core;
use super::identities::IdentityKey;

/// When who has all that it may have is told to come again: by then something has ended, or nothing does.
const RETRY_AFTER_MS: u64 = 1_000;

/// Tasks without an outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) tasks: usize,
    pub(super) bytes: usize,
}

impl Usage {
    pub(super) fn begin(&mut self, bytes: usize) {
        self.tasks += 1;
        self.bytes += bytes;
    }

    pub(super) fn end(&mut self, bytes: usize) {
        self.tasks -= 1;
        self.bytes -= bytes;
    }
}

impl Core {
    /// Refuses one more task of this many bytes when its identity has as many as it may. The identity
    /// that is everybody's has the bounds of the broker only.
    pub(super) fn room_for_identity(
        &self,
        identity: IdentityKey,
        bytes: usize,
    ) -> Result<(), ErrorInfo> {
        let Usage { tasks, bytes: held } = self.identities.usage(identity);
        let (max_tasks, max_bytes) =
            (self.config.max_identity_tasks, self.config.max_identity_bytes);
        let is_room = tasks < max_tasks && held.saturating_add(bytes) <= max_bytes;
        if is_room || !self.identities.is_proven(identity) {
            return Ok(());
        }
        let name = self.identities.get(identity);
        let message = format!(
            "{name} has {tasks} tasks of {held} bytes in flight; {max_tasks} tasks and {max_bytes} \
             bytes are allowed"
        );
        Err(ErrorInfo::new(ErrorCode::LimitExceeded, message).retry_after_ms(RETRY_AFTER_MS))
    }
}
