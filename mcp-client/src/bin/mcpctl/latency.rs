//! How long tasks take.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies in bounded memory, to three digits.
pub(crate) struct Latencies {
    us: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        // Three digits are within what a histogram can have.
        #[allow(clippy::expect_used)]
        let us = Histogram::new(3).expect("3 is a valid number of digits");
        Self { us }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        // Grows as needed, to about half a MiB for all that a u64 can say.
        let _ = self.us.record(latency.as_micros().try_into().unwrap_or(u64::MAX));
    }

    /// The latency that this part of all, 0 to 1, does not exceed.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.us.value_at_quantile(part))
    }
}

/// A duration in three digits: `123 µs`, `1.23 ms`, `12.3 s`.
pub(crate) fn show(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    let (number, unit) = match us {
        ..999.5 => return format!("{us:.0} µs"),
        ..999_500.0 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    match number {
        ..9.995 => format!("{number:.2} {unit}"),
        ..99.95 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let us = |us| show(Duration::from_micros(us));
        assert_eq!(us(0), "0 µs");
        assert_eq!(us(123), "123 µs");
        assert_eq!(us(1_234), "1.23 ms");
        assert_eq!(us(12_345), "12.3 ms");
        assert_eq!(us(250_000), "250 ms");
        assert_eq!(us(999_700), "1.00 s");
        assert_eq!(us(75_000_000), "75.0 s");
    }

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        for (part, ms) in [(0.5, 500.0), (0.99, 990.0)] {
            let got = latencies.quantile(part).as_secs_f64() * 1e3;
            assert!((got / ms - 1.0).abs() < 2e-3, "{got}");
        }
    }
}
