//! Workers that are much slower than the others of their pool are left out for a while.
//!
//! A worker's service time is smoothed, and it is an outlier where that is beyond mean + 3 σ of the
//! *others'*: in a set that contains it, one of n values is never more than (n - 1) ÷ √n standard
//! deviations from the mean (Samuelson, "How deviant can you be?", 1968), which is below 3 up to 10
//! workers.
//!
//! All this is done with the logarithms of service times. Where a few tasks take a hundred times as
//! long as most, as with language models, one of those would make its worker an outlier by an
//! arithmetic mean; in a logarithm it weighs seven times as much as another, and mean and σ are
//! those of factors: it is a matter of how many *times* slower a worker is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::rules::{MAX_INTERVAL_MS, within};
use crate::broker::time::Mono;

/// When a worker is left out for being slow, and for how long. The key `outlier` of an action's
/// rules.
///
/// At most half of a pool's workers are left out at a time, and none of fewer than three. Where no
/// other worker is left, one that is left out gets tasks all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct OutlierRules {
    /// How many standard deviations slower than the mean of the others; at least 1.25 times as slow
    /// for each. 0: slow workers are not left out. 3.
    pub sigmas: f64,
    /// Tasks that a worker must have done before it is compared. 32: the mean of fewer says little
    /// where some tasks take many times as long as others.
    pub min_samples: u32,
    /// For how long. 30,000.
    pub eject_ms: u64,
}

impl Default for OutlierRules {
    fn default() -> Self {
        Self { sigmas: 3.0, min_samples: 32, eject_ms: 30_000 }
    }
}

impl OutlierRules {
    pub(in crate::broker) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { sigmas, min_samples, eject_ms } = self;
        within("outlier.sigmas", *sigmas, 0.0..=MAX_SIGMAS)?;
        within("outlier.min_samples", *min_samples, 1..=MAX_SAMPLES)?;
        within("outlier.eject_ms", *eject_ms, 1..=MAX_INTERVAL_MS)
    }

    pub(super) fn are_on(&self) -> bool {
        self.sigmas > 0.0
    }
}

/// 1.25^100 times as slow: nobody is.
const MAX_SIGMAS: f64 = 100.0;
/// More are a slip of the pen.
const MAX_SAMPLES: u32 = 1_000_000;

/// Workers that must be compared: a mean of one other is none.
const MIN_COMPARED: u32 = 3;

/// Samples in a row that must be outliers, so that one long task alone is none.
const IN_A_ROW: u8 = 2;

/// A smoothed time follows the latest samples with this weight: its own spread is then a tenth of
/// theirs, well below [`MIN_SIGMA`] for whatever tasks, and it is found in about 20 samples that a
/// worker became ten times as slow.
const WEIGHT: i64 = 64;

/// An octave, a factor of two, in the unit of logarithms here.
const OCTAVE: f64 = 65_536.0;

/// The least σ that is reckoned with, log2(1.25): workers that are all but equal have none.
const MIN_SIGMA: f64 = 0.321_928 * OCTAVE;

/// How fast a worker is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Smoothed logarithm of its service times.
    average: i64,
    samples: u32,
    /// Whether it is among those of its pool that are compared.
    is_compared: bool,
    /// Samples that were outliers, since one was not.
    in_a_row: u8,
    /// Until when it is left out.
    ejected_until: Option<Mono>,
}

/// How fast the workers of a pool are that are compared. Sums of integers, so that they don't drift
/// while workers come and go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paces {
    compared: u32,
    sum: i64,
    squares: i64,
}

impl Paces {
    fn add(&mut self, average: i64) {
        self.compared += 1;
        self.sum += average;
        self.squares += average * average;
    }

    fn remove(&mut self, average: i64) {
        self.compared -= 1;
        self.sum -= average;
        self.squares -= average * average;
    }
}

impl Pace {
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    pub(super) fn ejected_until(&self) -> Option<Mono> {
        self.ejected_until
    }

    /// It did a task in `service_us`. Returns whether it is an outlier by now.
    #[inline]
    pub(super) fn note(
        &mut self,
        service_us: u64,
        paces: &mut Paces,
        rules: &OutlierRules,
    ) -> bool {
        if self.is_ejected() {
            return false;
        }
        let sample = logarithm(service_us);
        if self.is_compared {
            paces.remove(self.average);
        }
        self.samples = self.samples.saturating_add(1);
        self.average += (sample - self.average) / WEIGHT.min(self.samples.into());
        self.is_compared = self.samples >= rules.min_samples;
        if !self.is_compared {
            return false;
        }
        // The sums are without it now: those of the others.
        let limit = limit(paces, self.average, rules);
        let is_slow = limit.is_some_and(|limit| sample as f64 > limit);
        self.in_a_row = if is_slow { (self.in_a_row + 1).min(IN_A_ROW) } else { 0 };
        paces.add(self.average);
        self.in_a_row == IN_A_ROW
    }

    /// How many times as slow as the others it is, in percent.
    pub(super) fn percent_of_others(&self, paces: &Paces) -> u64 {
        let others = f64::from(paces.compared.saturating_sub(1).max(1));
        let mean = (paces.sum - self.average) as f64 / others;
        (((self.average as f64 - mean) / OCTAVE).exp2() * 100.0).round() as u64
    }

    /// Leaves it out. What was known of it is forgotten, so that it is judged by what it does after.
    pub(super) fn eject(&mut self, until: Mono, paces: &mut Paces) {
        self.leave(paces);
        *self = Self { ejected_until: Some(until), ..Self::default() };
    }

    /// Takes it in again if it was left out for long enough. Returns whether that is so.
    pub(super) fn pass(&mut self, now: Mono) -> bool {
        let is_due = self.ejected_until.is_some_and(|until| now >= until);
        if is_due {
            *self = Self::default();
        }
        is_due
    }

    /// It is no longer compared, until its next sample.
    pub(super) fn leave(&mut self, paces: &mut Paces) {
        if std::mem::take(&mut self.is_compared) {
            paces.remove(self.average);
        }
    }
}

/// Beyond which a sample of a worker with this average is slow; none if the average is not.
fn limit(others: &Paces, average: i64, rules: &OutlierRules) -> Option<f64> {
    if others.compared + 1 < MIN_COMPARED {
        return None;
    }
    let n = f64::from(others.compared);
    let mean = others.sum as f64 / n;
    // Mostly this is all, without a square root.
    if average as f64 <= mean + rules.sigmas * MIN_SIGMA {
        return None;
    }
    let variance = others.squares as f64 / n - mean * mean;
    let limit = mean + rules.sigmas * variance.max(0.0).sqrt().max(MIN_SIGMA);
    (average as f64 > limit).then_some(limit)
}

/// log2 of a time, in [`OCTAVE`]s; between powers of two on a straight line, which is off by at most
/// 6 %.
fn logarithm(us: u64) -> i64 {
    let us = us.max(1);
    let whole = us.ilog2();
    let fraction = (us << (63 - whole)) << 1 >> 48;
    (i64::from(whole) << 16) | fraction as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::rng::Rng;

    struct Pool {
        workers: Vec<Pace>,
        paces: Paces,
        rules: OutlierRules,
    }

    impl Pool {
        fn new(workers: usize) -> Self {
            let rules = OutlierRules::default();
            Self { workers: vec![Pace::default(); workers], paces: Paces::default(), rules }
        }

        fn note(&mut self, worker: usize, service_us: u64) -> bool {
            self.workers[worker].note(service_us, &mut self.paces, &self.rules)
        }

        /// In rounds of one sample of each worker, in which round each was first an outlier.
        fn first(&mut self, rounds: u32, mut us: impl FnMut(usize) -> u64) -> Vec<Option<u32>> {
            let mut first = vec![None; self.workers.len()];
            for round in 1..=rounds {
                for (worker, first) in first.iter_mut().enumerate() {
                    if self.note(worker, us(worker)) {
                        first.get_or_insert(round);
                    }
                }
            }
            first
        }
    }

    #[test]
    fn logarithms_are_those_of_powers_of_two_and_grow_between_them() {
        assert_eq!([1, 2, 1024, 1 << 63].map(logarithm), [0, 1 << 16, 10 << 16, 63 << 16]);
        assert_eq!((logarithm(0), logarithm(3)), (0, 3 << 15));
        assert!((1..5_000).all(|us| logarithm(us) <= logarithm(us + 1)));
    }

    #[test]
    fn one_slow_worker_of_eight_is_found_at_its_second_sample_that_counts() {
        let mut it = Pool::new(8);
        let first = it.first(100, |worker| if worker == 7 { 200_000 } else { 20_000 });
        let mut expected = vec![None; 8];
        // The last of a round: all others have been compared since the 32nd.
        expected[7] = Some(33);
        assert_eq!(first, expected);
        let percent = it.workers[7].percent_of_others(&it.paces);
        assert!((950..1_050).contains(&percent), "{percent}");
    }

    #[test]
    fn a_worker_that_becomes_slow_is_found_soon_and_one_long_task_is_nothing() {
        let mut it = Pool::new(8);
        assert_eq!(it.first(1_000, |_| 20_000), [None; 8]);
        assert!(!it.note(3, 20_000_000));
        let mut rounds = 0;
        while !it.note(3, 200_000) {
            rounds += 1;
            assert!(rounds < 30);
        }
        assert!(rounds > 2);
    }

    #[test]
    fn equals_are_never_outliers_however_their_tasks_spread() {
        let mut rng = Rng::new(7);
        // Exponential, and one in 50 a hundred times as long.
        let mut us = move |_| {
            let unit = (rng.below(1 << 20) + 1) as f64 / f64::from(1 << 20);
            (-unit.ln() * 20_000.0) as u64 * if rng.below(50) == 0 { 100 } else { 1 }
        };
        assert_eq!(Pool::new(8).first(20_000, &mut us), [None; 8]);
    }

    #[test]
    fn two_workers_are_not_compared_and_none_when_it_is_off() {
        let mut it = Pool::new(2);
        assert_eq!(it.first(200, |worker| if worker == 0 { 900_000 } else { 1 }), [None; 2]);
        let mut it = Pool::new(3);
        it.rules.min_samples = 0;
        assert_eq!(it.first(9, |worker| if worker == 2 { 900_000 } else { 1 })[2], Some(2));
    }

    #[test]
    fn whoever_was_left_out_begins_afresh_and_the_sums_are_those_of_the_rest() {
        let mut it = Pool::new(4);
        it.first(50, |worker| 1_000 << worker);
        let Pool { workers, paces, .. } = &mut it;
        workers[3].eject(Mono(70), paces);
        assert!(workers[3].is_ejected() && !workers[3].pass(Mono(69)));
        assert!(!it.note(3, 1), "what it does meanwhile does not count");
        assert!(it.workers[3].pass(Mono(70)));
        assert_eq!((it.workers[3].samples, it.paces.compared), (0, 3));
        for worker in 0..3 {
            let Pool { workers, paces, .. } = &mut it;
            workers[worker].leave(paces);
            workers[worker].leave(paces);
        }
        assert_eq!((it.paces.compared, it.paces.sum, it.paces.squares), (0, 0, 0));
    }
}
