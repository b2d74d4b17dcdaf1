//! Time as the core sees it: told with every input, never asked for.

use std::ops::Add;

/// A point on a clock that only goes forward: µs since the core was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// µs from `earlier` to here; 0 if that is later.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The point `ms` milliseconds from here.
    pub fn plus_ms(self, ms: u64) -> Mono {
        self + ms.saturating_mul(1000)
    }
}

/// Adds µs.
impl Add<u64> for Mono {
    type Output = Mono;
    fn add(self, us: u64) -> Mono {
        Mono(self.0.saturating_add(us))
    }
}

/// The time of an input, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For durations and deadlines.
    pub mono: Mono,
    /// For people and for records that outlive the process: ms since 1970, UTC.
    pub wall_ms: u64,
}
