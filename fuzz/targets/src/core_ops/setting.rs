//! What differs from one core to another.

use mcp_broker::broker::{Affinity, CoreConfig, FallbackStep, HedgeRule, Policy};

use crate::input::Input;

#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    policy: u8,
    rules: u8,
}

impl Setting {
    pub(super) fn new(input: &mut Input<'_>) -> Self {
        Self { policy: input.byte(), rules: input.byte() }
    }

    /// Whether slow attempts get others beside them.
    pub(super) fn hedges(self) -> bool {
        self.rules & 1 != 0
    }

    pub(super) fn apply(self, config: &mut CoreConfig) {
        config.is_durable = true;
        let has = |bit: u8| self.rules & 1 << bit != 0;
        let rules = &mut config.rules;
        rules.policy = Policy::ALL[usize::from(self.policy) % Policy::ALL.len()];
        if self.policy & 0x80 != 0 {
            (rules.policy, rules.affinity) = (Policy::SessionHash, Affinity::Hard);
        }
        rules.hedge = self.hedges().then(|| {
            let mut rule = HedgeRule::default();
            (rule.budget_percent, rule.min_samples, rule.min_delay_ms) = (100, 1, 0);
            rule
        });
        rules.max_queue_tasks = if has(1) { 2 } else { 0 };
        rules.max_running = if has(2) { 2 } else { 0 };
        rules.max_queue_wait_ms = if has(3) { 500 } else { 0 };
        if has(4) {
            // They are judged at once.
            rules.breaker.failures = 2;
            rules.breaker.open_ms = 500;
            rules.outlier.min_samples = 2;
            rules.poison_after = 2;
        }
        config.retry_budget_percent = if has(5) { 0 } else { 1_000 };
        if has(6) {
            config.stream_bytes = 600;
            config.max_upload_bytes = 128 * 1024;
        }
        if has(7) {
            config.rules.fallback =
                vec![FallbackStep::Default { body: "output".into(), content_type: "".into() }];
        }
    }
}
