//! Distributions of times.

use fastrand::Rng;

/// How long tasks take: what their mean is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Service {
    /// All the same.
    Fixed,
    /// Memoryless, as the textbooks' M/M/k queues have it.
    Exponential,
    /// Most are short, and a few are very long: a bounded Pareto distribution, as measured of jobs in
    /// computer systems (Harchol-Balter and Downey, "Exploiting Process Lifetime Distributions for
    /// Dynamic Load Balancing", 1997).
    HeavyTailed,
}

/// Exponent of the heavy tail, and its longest time ÷ its shortest.
const ALPHA: f64 = 1.5;
const SPAN: f64 = 1000.0;

impl Service {
    pub(super) fn draw_us(self, mean_us: f64, rng: &mut Rng) -> u64 {
        let us = match self {
            Self::Fixed => mean_us,
            Self::Exponential => exponential(mean_us, rng),
            Self::HeavyTailed => {
                let shortest = mean_us / bounded_pareto_mean();
                let share = 1.0 - rng.f64() * (1.0 - SPAN.powf(-ALPHA));
                shortest * share.powf(-1.0 / ALPHA)
            }
        };
        (us.round() as u64).max(1)
    }
}

/// The time to the next of events that come independently of each other.
pub(super) fn exponential(mean: f64, rng: &mut Rng) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// Of the distribution whose shortest time is 1.
fn bounded_pareto_mean() -> f64 {
    let whole = 1.0 - SPAN.powf(-ALPHA);
    ALPHA / (ALPHA - 1.0) * (1.0 - SPAN.powf(1.0 - ALPHA)) / whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_as_asked_for() {
        for service in [Service::Fixed, Service::Exponential, Service::HeavyTailed] {
            let mut rng = Rng::with_seed(1);
            let count = 200_000;
            let sum: u64 = (0..count).map(|_| service.draw_us(20_000.0, &mut rng)).sum();
            let mean = sum as f64 / f64::from(count);
            assert!((19_000.0..21_000.0).contains(&mean), "{service:?}: {mean}");
        }
    }
}
