//! One cell under one seed, as JSON has it.

use serde::Serialize;

use super::contender::Contender;
use super::figures::Figures;
use super::workload::Workload;
use crate::median::median;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Record {
    pub(super) workload: &'static str,
    pub(super) policy: String,
    /// Whether it is a policy of this broker.
    pub(super) is_ours: bool,
    pub(super) seed: u64,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

impl Record {
    pub(super) fn new(
        workload: &Workload,
        contender: &Contender,
        seed: u64,
        figures: Figures,
    ) -> Self {
        Self {
            workload: workload.name,
            policy: contender.to_string(),
            is_ours: contender.is_ours(),
            seed,
            figures,
        }
    }
}

/// The median of a figure over the seeds of a cell.
pub(super) fn median_of(
    records: &[Record],
    workload: &str,
    policy: &str,
    figure: impl Fn(&Figures) -> Option<f64>,
) -> Option<f64> {
    let cell = records.iter().filter(|it| it.workload == workload && it.policy == policy);
    median(cell.filter_map(|record| figure(&record.figures)).collect())
}
