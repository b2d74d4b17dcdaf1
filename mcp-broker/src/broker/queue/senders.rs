//! How much of what waits in an action's queue each session has sent, of the tasks that name no tenant.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::super::sessions::SessionKey;
use super::Total;

/// Sessions of which tasks wait: no more than tasks do.
#[derive(Debug)]
pub(in crate::broker) struct Senders(HashMap<u64, Total, FixedState>);

impl Senders {
    pub(in crate::broker) fn new(hasher: FixedState) -> Self {
        Self(HashMap::with_hasher(hasher))
    }

    /// A task waits from now on.
    pub(in crate::broker) fn waits(&mut self, sender: SessionKey, bytes: usize) {
        self.0.entry(sender.to_bits()).or_default().add(bytes);
    }

    /// One waits no more.
    pub(in crate::broker) fn waits_no_more(&mut self, sender: SessionKey, bytes: usize) {
        let key = sender.to_bits();
        let Some(total) = self.0.get_mut(&key) else { return };
        total.remove(bytes);
        if total.tasks == 0 {
            self.0.remove(&key);
        }
    }

    /// One that waits needs less room than it did.
    pub(in crate::broker) fn shrinks(&mut self, sender: SessionKey, by: usize) {
        if let Some(total) = self.0.get_mut(&sender.to_bits()) {
            total.bytes -= by;
        }
    }

    /// What waits of a session's.
    pub(in crate::broker) fn waiting(&self, sender: SessionKey) -> Total {
        self.0.get(&sender.to_bits()).copied().unwrap_or_default()
    }
}
