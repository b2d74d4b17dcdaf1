//! How many tasks ended how.

use std::fmt;

use mcp_client::Outcome;

/// Counts by outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcomes([u64; Outcome::ALL.len()]);

impl Outcomes {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.add_many(outcome, 1);
    }

    pub(crate) fn add_many(&mut self, outcome: Outcome, count: u64) {
        self.0[index(outcome)] += count;
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.0[index(outcome)]
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The outcomes that there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.iter().copied().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

fn index(outcome: Outcome) -> usize {
    Outcome::ALL.iter().position(|it| *it == outcome).unwrap_or_default()
}

/// `118 ok, 2 failed`.
impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> =
            self.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        f.write_str(&counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_is_named() {
        let mut it = Outcomes::default();
        assert_eq!(it.to_string(), "");
        it.add(Outcome::Rejected);
        it.add_many(Outcome::Ok, 2);
        assert_eq!((it.to_string().as_str(), it.total()), ("2 ok, 1 rejected", 3));
    }
}
