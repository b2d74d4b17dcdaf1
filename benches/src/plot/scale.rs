//! Axes: from values to places, and the ticks.

/// Ticks that a linear axis has, about.
const LINEAR_TICKS: f64 = 5.0;

/// How values are laid out between the two ends of an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scale {
    /// From 0 to a round number.
    Linear { max: f64, step: f64 },
    /// From one power of ten, or half of it, to another.
    Log { min: f64, max: f64 },
    /// These values, evenly.
    Categories(Vec<f64>),
    /// Shares from 0.5 on: each further nine takes the same room.
    Nines { count: u32 },
}

impl Scale {
    /// A linear one that has room for `values`.
    pub(crate) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let max = values.fold(0.0, f64::max);
        let max = if max > 0.0 { max } else { 1.0 };
        let raw = max / LINEAR_TICKS;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|it| it * power);
        let step = step.into_iter().find(|it| *it >= raw * 0.999).unwrap_or(10.0 * power);
        Self::Linear { max: (max / step * 0.999).ceil() * step, step }
    }

    /// A logarithmic one that has room for `values`, those above 0.
    pub(crate) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0f64);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let min = LOG_STEPS.iter().rev().map(|it| it * decade(low)).find(|it| *it <= low);
        let max = LOG_STEPS.iter().map(|it| it * decade(high)).find(|it| *it >= high);
        let (min, max) = (min.unwrap_or(low), max.unwrap_or(10.0 * decade(high)));
        Self::Log { min, max: if max > min { max } else { 10.0 * min } }
    }

    /// Where `value` is: 0 at one end, 1 at the other. Beyond the ends is at them.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { max, .. } => value / max,
            Self::Log { min, max } => (value.max(*min) / min).ln() / (max / min).ln(),
            Self::Categories(values) => {
                let index = values.iter().position(|it| *it == value).unwrap_or_default();
                (index as f64 + 0.5) / values.len() as f64
            }
            Self::Nines { count } => {
                let end = nines(1.0 - 0.1f64.powi(*count as i32));
                (nines(value) - nines(0.5)) / (end - nines(0.5))
            }
        };
        place.clamp(0.0, 1.0)
    }

    /// Values to mark, and what to write there.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { max, step } => {
                let count = (max / step).round() as u32;
                (0..=count).map(|index| f64::from(index) * step).map(labelled).collect()
            }
            Self::Log { min, max } => {
                let mut ticks = Vec::new();
                let mut power = decade(*min);
                while power <= *max * 1.001 {
                    let values = LOG_STEPS.iter().map(|it| it * power);
                    ticks.extend(values.filter(|it| (min * 0.999..=max * 1.001).contains(it)));
                    power *= 10.0;
                }
                // Over several decades, just these.
                if ticks.len() > 8 {
                    ticks.retain(|it| (it / decade(*it) - 1.0).abs() < 0.01);
                }
                ticks.into_iter().map(labelled).collect()
            }
            Self::Categories(values) => values.iter().copied().map(labelled).collect(),
            Self::Nines { count } => {
                let nines = (1..=*count).map(|it| 1.0 - 0.1f64.powi(it as i32));
                let label = |share: f64| {
                    let digits = format!("{:.4}", share * 100.0);
                    (share, digits.trim_end_matches('0').trim_end_matches('.').to_owned())
                };
                std::iter::once(0.5).chain(nines).map(label).collect()
            }
        }
    }
}

const LOG_STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// The power of ten at or below.
fn decade(value: f64) -> f64 {
    // Not 999.99… for 1000.
    10f64.powf((value.log10() + 1e-9).floor())
}

fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-12).log10()
}

fn labelled(value: f64) -> (f64, String) {
    let (scaled, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let digits = format!("{scaled:.2}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    (value, format!("{digits}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn a_linear_axis_ends_at_a_round_number() {
        let scale = Scale::linear([310_000.0, 740_000.0].into_iter());
        assert_eq!(labels(&scale), ["0", "200k", "400k", "600k", "800k"]);
        assert_eq!(scale.place(400_000.0), 0.5);
        assert_eq!(labels(&Scale::linear([5.0].into_iter())), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(Scale::linear(std::iter::empty()).place(0.0), 0.0);
    }

    #[test]
    fn a_log_axis_holds_all_values() {
        let scale = Scale::log([120.0, 4_000.0].into_iter());
        assert_eq!(scale, Scale::Log { min: 100.0, max: 5_000.0 });
        assert_eq!(labels(&scale), ["100", "200", "500", "1000", "2000", "5000"]);
        assert_eq!((scale.place(100.0), scale.place(5_000.0)), (0.0, 1.0));
        assert_eq!(labels(&Scale::log([1.0, 1e6].into_iter())).len(), 7);
        assert_eq!(Scale::log([1000.0].into_iter()), Scale::Log { min: 1000.0, max: 10_000.0 });
        assert_eq!(Scale::log(std::iter::empty()), Scale::Log { min: 1.0, max: 10.0 });
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let scale = Scale::Nines { count: 3 };
        assert_eq!(labels(&scale), ["50", "90", "99", "99.9"]);
        let place = |share| scale.place(share);
        assert!((place(0.999) - place(0.99) - (place(0.99) - place(0.9))).abs() < 1e-9);
        assert_eq!((place(0.1), place(0.9999)), (0.0, 1.0));
    }
}
