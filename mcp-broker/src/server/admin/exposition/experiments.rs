//! Shadow tasks, mirrors and splits.

use std::fmt;

use super::{Families, by_outcome};
use crate::broker::{Metrics, MirrorCounts};

/// One of the counts of a mirror.
type Count = fn(&MirrorCounts) -> u64;

impl Metrics {
    pub(super) fn write_shadow(&self, to: &mut Families<'_>) -> fmt::Result {
        let shadow = || {
            self.actions
                .iter()
                .filter_map(|it| Some(([("action", it.action.as_str())], it.shadow.as_deref()?)))
        };
        let help = "Shadow tasks by how they ended: load tests, and copies of live tasks";
        to.counters("shadow_tasks_ended", help, shadow().flat_map(by_outcome))?;
        let help = "From taking a shadow task to its outcome";
        to.histograms("shadow_task_duration", help, shadow().map(|(of, it)| (of, &it.total)))?;
        let help = "In the handler, of shadow tasks";
        to.histograms("shadow_task_work", help, shadow().map(|(of, it)| (of, &it.worked)))
    }

    pub(super) fn write_mirrors(&self, to: &mut Families<'_>) -> fmt::Result {
        let mirrors = || {
            self.actions
                .iter()
                .filter_map(|it| Some(([("action", it.action.as_str())], it.mirror.as_deref()?)))
        };
        let by_mirror: [(_, _, Count); 7] = [
            ("mirror_copied", "Live tasks that were copied to shadow workers", |it| it.mirrored),
            ("mirror_skipped", "Live tasks that no shadow worker had room for", |it| it.skipped),
            ("mirror_equal", "Copies with the same result", |it| it.equal),
            ("mirror_different", "Copies with another result", |it| it.different),
            ("mirror_not_compared", "Copies of what has no result, or one in parts", |it| {
                it.not_compared
            }),
            ("mirror_shadow_failed", "Copies without a result", |it| it.shadow_failed),
            ("mirror_given_up", "Copies whose originals took too long", |it| it.given_up),
        ];
        for (name, help, value) in by_mirror {
            to.counters(name, help, mirrors().map(|(of, it)| (of, value(it))))?;
        }
        let help = "From ROUTE to RESULT, of live tasks that were copied";
        to.histograms("mirror_live", help, mirrors().map(|(of, it)| (of, &it.live)))?;
        let help = "From ROUTE to RESULT, of their copies";
        to.histograms("mirror_shadow", help, mirrors().map(|(of, it)| (of, &it.shadow)))
    }

    pub(super) fn write_arms(&self, to: &mut Families<'_>) -> fmt::Result {
        let arms = || {
            self.actions.iter().flat_map(|action| {
                let of = |arm| [("action", action.action.as_str()), ("arm", arm)];
                action.arms.iter().map(move |arm| (of(arm.name.as_str()), arm))
            })
        };
        let help = "Tasks of an arm by how they ended";
        let counts = arms().map(|(of, arm)| (of, &arm.counts));
        to.counters("arm_tasks_ended", help, counts.flat_map(by_outcome))?;
        let help = "Tasks that were an arm's, and went elsewhere as it had no worker";
        to.counters("arm_tasks_moved", help, arms().map(|(of, arm)| (of, arm.moved)))?;
        let help = "From taking a task to delivering its outcome, by arm";
        let totals = arms().map(|(of, arm)| (of, &arm.counts.total));
        to.histograms("arm_task_duration", help, totals)?;
        let help = "In the handler as its worker reports it, by arm";
        let worked = arms().map(|(of, arm)| (of, &arm.counts.worked));
        to.histograms("arm_task_work", help, worked)
    }
}
