//! What goes first when the broker itself runs full: tasks of actions that are not core.

use mcp_proto::{ErrorCode, ErrorInfo};

use crate::broker::pool::{Pool, PoolKey};
use crate::broker::{Core, Event};

/// Such tasks are shed from this share of a bound on, in percent. A fifth is left for core actions.
const SHED_ABOVE_PERCENT: usize = 80;

/// And until it is below this, so that they do not come and go with every task.
const SHED_UNTIL_PERCENT: usize = 60;

/// When a task that was shed may find room.
const RETRY_AFTER_MS: u64 = 1_000;

impl Core {
    /// Why an action takes no tasks now, if it is one whose pool says that it may not.
    pub(in crate::broker) fn restriction(&mut self, key: PoolKey) -> Option<ErrorInfo> {
        let pool = self.pools.get(key)?;
        if !pool.is_degraded && !pool.rules.core {
            self.note_pressure();
        }
        let pool = self.pools.get(key)?;
        let error = self.restriction_of(pool)?;
        self.stats.shed += u64::from(!pool.is_degraded);
        Some(error)
    }

    /// The same, without noting that a task came.
    pub(in crate::broker) fn restriction_of(&self, pool: &Pool) -> Option<ErrorInfo> {
        if pool.is_degraded {
            return Some(self.degraded_error(pool.action.as_str()));
        }
        if pool.is_shadow || pool.rules.core || !self.pressure().0 {
            return None;
        }
        let message = format!(
            "{} is not a core action, and the broker keeps its room for those",
            pool.action
        );
        Some(ErrorInfo::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS))
    }

    /// Tells when pressure begins or ends. Looked at only when a task comes that would be shed.
    fn note_pressure(&mut self) {
        let (is_shedding, (percent, of)) = self.pressure();
        if is_shedding != self.is_shedding {
            self.is_shedding = is_shedding;
            self.event(match is_shedding {
                true => Event::SheddingBegan { of, percent },
                false => Event::SheddingEnded,
            });
        }
    }

    /// Whether what there is to bound is mostly used up, and what of it to how many percent.
    fn pressure(&self) -> (bool, (usize, &'static str)) {
        let config = &self.config;
        let tasks = self.tasks.len() - self.shadow.tasks;
        let waiting_bytes = self.waiting.live.bytes + self.delayed.live.bytes;
        let shares = [
            ("tasks", tasks, config.max_tasks),
            ("bytes of tasks that wait", waiting_bytes, config.max_waiting_bytes),
            ("bytes of streams", self.streams.kept_bytes() as usize, config.stream_bytes),
            ("bytes for inputs", self.uploads.set_aside_bytes(), config.max_upload_bytes),
        ];
        let percent = |used: usize, max: usize| used.saturating_mul(100) / max.max(1);
        let shares = shares.map(|(of, used, max)| (percent(used, max), of));
        let fullest = shares.into_iter().max().unwrap_or_default();
        let above = if self.is_shedding { SHED_UNTIL_PERCENT } else { SHED_ABOVE_PERCENT };
        (fullest.0 >= above, fullest)
    }
}
