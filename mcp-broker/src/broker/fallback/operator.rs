//! Actions that an operator keeps from their workers.

use mcp_proto::{ActionName, ErrorCode, ErrorInfo};

use crate::broker::pool::PoolKey;
use crate::broker::{Core, Event, Now, Timer};

/// Actions that are degraded at one time. Nobody has so many for a reason.
pub(in crate::broker) const MAX_DEGRADED: usize = 1_000;

/// Tasks that are sent on at once when their action is degraded while they wait: about a millisecond of
/// the core. The others follow, a millisecond apart.
const SENT_ON_AT_ONCE: usize = 1_000;

/// When a refused task may be taken again: an operator acts within minutes.
const RETRY_AFTER_MS: u64 = 10_000;

/// Who keeps an action from its workers, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Degraded {
    /// The operator's identity.
    pub by: String,
    /// What the operator said; may be empty.
    pub why: String,
    /// Since when, ms since 1970.
    pub since_wall_ms: u64,
}

impl Core {
    /// Keeps an action's tasks from its workers: those that come, and those that wait, take its
    /// fallback chain; what runs goes on. Returns whether that is new.
    ///
    /// # Errors
    /// When as many actions are degraded as may be.
    pub(in crate::broker) fn degrade(
        &mut self,
        now: Now,
        action: &ActionName,
        by: String,
        why: String,
    ) -> Result<bool, ErrorInfo> {
        if self.degraded.contains_key(action) {
            return Ok(false);
        }
        if self.degraded.len() >= MAX_DEGRADED {
            let message = format!("{MAX_DEGRADED} actions are degraded, the limit");
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message));
        }
        let degraded = Degraded { by: by.clone(), why: why.clone(), since_wall_ms: now.wall_ms };
        self.degraded.insert(action.clone(), degraded);
        self.event(Event::ActionDegraded { action: action.clone(), by, why });
        if let Some(key) = self.pool_names.get(action).copied() {
            if let Some(pool) = self.pools.get_mut(key) {
                pool.set_degraded(true);
            }
            self.send_on(now, key);
        }
        self.orders_changed();
        Ok(true)
    }

    /// Gives an action's tasks to its workers again. Returns whether they were kept from them.
    pub(in crate::broker) fn restore(&mut self, action: &ActionName, by: String) -> bool {
        if self.degraded.remove(action).is_none() {
            return false;
        }
        let pool = self.pool_names.get(action).and_then(|key| self.pools.get_mut(*key));
        if let Some(pool) = pool {
            pool.set_degraded(false);
        }
        self.event(Event::ActionRestored { action: action.clone(), by });
        self.orders_changed();
        true
    }

    /// Has what waits for the workers of a degraded action take another way, or end.
    pub(in crate::broker) fn send_on(&mut self, now: Now, key: PoolKey) {
        for _ in 0..SENT_ON_AT_ONCE {
            let Some(pool) = self.pools.get(key).filter(|pool| pool.is_degraded) else { return };
            let Some((task, _)) = self.tasks.waiting(&pool.waiting).next() else { return };
            let error = self.degraded_error(pool.action.as_str());
            self.give_up(now, task, error);
        }
        self.timers.set(now.mono.plus_ms(1), Timer::SendOn(key));
    }

    /// Why a task of a degraded action is refused, if nothing answers it.
    pub(in crate::broker) fn degraded_error(&self, action: &str) -> ErrorInfo {
        let why = self.degraded.get(action).map_or("", |degraded| &*degraded.why);
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        let message = format!(
            "an operator keeps tasks of {action} from its workers{why}, and no fallback answers it"
        );
        ErrorInfo::new(ErrorCode::Degraded, message).retry_after_ms(RETRY_AFTER_MS)
    }
}
