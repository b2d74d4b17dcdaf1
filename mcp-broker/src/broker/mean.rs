//! What something takes as a rule.

/// Values that count: the last about as many. Of the means of so many exponentially distributed
/// values, two thirds are within 13 % of the true one.
const WINDOW: u8 = 32;

/// A smoothed mean: of the first [`WINDOW`] values their mean, then each new one has the weight
/// 1 ÷ [`WINDOW`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean {
    /// [`Mean::values`] times the mean.
    sum_us: u64,
    values: u8,
}

impl Mean {
    pub(super) fn note(&mut self, us: u64) {
        if self.values < WINDOW {
            self.values += 1;
        } else {
            self.sum_us -= self.sum_us / u64::from(WINDOW);
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// The mean, if there were any values.
    pub(super) fn us(&self) -> Option<u64> {
        self.sum_us.checked_div(self.values.into())
    }

    /// The mean, if there were so many values that it is worth something.
    pub(super) fn known_us(&self) -> Option<u64> {
        const ENOUGH: u8 = 8;
        if self.values >= ENOUGH { self.us() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_and_has_no_bias() {
        let mut it = Mean::default();
        assert_eq!((it.us(), it.known_us()), (None, None));
        it.note(3);
        assert_eq!((it.us(), it.known_us()), (Some(3), None));
        (0..1_000).for_each(|n| it.note([40, 60][n % 2]));
        assert!(it.known_us().unwrap().abs_diff(50) <= 1, "{it:?}");
        (0..1_000).for_each(|_| it.note(7));
        assert_eq!(it.known_us(), Some(7));
        (0..1_000).for_each(|_| it.note(100));
        assert!(it.known_us().unwrap() >= 99);
        it.note(u64::MAX);
        it.note(u64::MAX);
    }
}
