//! Another configuration while tasks wait and run.

use mcp_proto::ActionName;

use super::rules::Rules;
use super::{Core, CoreConfig, Now};

impl Core {
    /// Takes another configuration, in one step. Nothing that was taken or begun ends by it: bounds
    /// hold for what comes, intervals for what is timed from now on, and a worker keeps the lease and
    /// its PING interval until it says HELLO again. What this core is stays: `broker_id`, `epoch`,
    /// `seed`, `restart_grace_ms` and `is_durable`.
    ///
    /// Rules that operators gave to actions hold on, until they are reset to those of this
    /// configuration. Returns these actions, by name.
    pub fn reconfigure(&mut self, now: Now, config: CoreConfig) -> Vec<ActionName> {
        let was = &self.config;
        let config = CoreConfig {
            broker_id: was.broker_id.clone(),
            epoch: was.epoch,
            seed: was.seed,
            restart_grace_ms: was.restart_grace_ms,
            is_durable: was.is_durable,
            ..config
        };
        self.finished.set_bounds(config.kept_results, config.kept_result_bytes);
        self.answers.set_bounds(config.cached_answers, config.cached_answer_bytes);
        self.streams.set_bounds(config.stream_bytes, config.kept_results);
        self.uploads.set_bound(config.max_upload_bytes);
        self.retry_budget.set_percent(config.retry_budget_percent);
        self.shadow.retry_budget.set_percent(config.retry_budget_percent);
        let of_operators: Vec<_> = self
            .rules
            .actions()
            .filter(|action| self.is_ruled_by_operator(action))
            .map(|action| (action.clone(), self.rules.of(action.as_str())))
            .collect();
        self.config = config;

        let mut rules = Rules::new(
            self.config.rules.clone(),
            self.config.actions.clone(),
            self.pool_names.hasher().clone(),
        );
        let mut kept: Vec<_> = of_operators.iter().map(|(action, _)| action.clone()).collect();
        for (action, own) in of_operators {
            rules.set(action, own);
        }
        self.replace_rules(now, rules);
        kept.sort_unstable();
        kept
    }
}
