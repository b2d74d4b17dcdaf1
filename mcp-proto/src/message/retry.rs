//! When a task is tried again.

use super::field::In;
use crate::error::InvalidMessage;
use crate::limits::{MAX_ATTEMPTS, MAX_RETRY_WAIT_MS};
use crate::wire::{Reader, WireError, Writer};

/// Attempts after failures of the handler, each after a wait that grows. The defaults are three
/// attempts, 100 ms before the second, twice as long before each further one, at most 1 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// In all, the first included: 1 to 100.
    pub max_attempts: u32,
    /// Before the second attempt, ms: 1 to 3,600,000.
    pub initial_ms: u32,
    /// What each further wait is multiplied with, percent: 100 to 10,000.
    pub coefficient_percent: u32,
    /// The longest wait, ms: 1 to 3,600,000.
    pub cap_ms: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, initial_ms: 100, coefficient_percent: 200, cap_ms: 1000 }
    }
}

impl Retry {
    /// The wait after the attempt of this number, ms; 1 is the first.
    pub fn wait_ms(&self, attempt: u32) -> u64 {
        let cap = u64::from(self.cap_ms);
        let mut wait = u64::from(self.initial_ms).min(cap);
        for _ in 1..attempt.min(MAX_ATTEMPTS) {
            wait = (wait * u64::from(self.coefficient_percent) / 100).min(cap);
        }
        wait
    }

    /// What is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let checks = [
            ("retry.max_attempts", self.max_attempts, 1, MAX_ATTEMPTS),
            ("retry.initial_ms", self.initial_ms, 1, MAX_RETRY_WAIT_MS),
            ("retry.coefficient_percent", self.coefficient_percent, 100, 10_000),
            ("retry.cap_ms", self.cap_ms, 1, MAX_RETRY_WAIT_MS),
        ];
        for (field, value, min, max) in checks {
            if value < min || value > max {
                return Err((field, format!("is {value}; {min} to {max} are allowed")));
            }
        }
        Ok(())
    }

    pub(super) fn parse(it: &[u8], at: &In) -> Result<Self, InvalidMessage> {
        let retry = Self::read(it).map_err(|error| at.invalid("retry", error))?;
        retry.check().map_err(|(field, problem)| at.invalid(field, problem))?;
        Ok(retry)
    }

    fn read(it: &[u8]) -> Result<Self, WireError> {
        let mut retry = Self::default();
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            let to = match field.number {
                1 => &mut retry.max_attempts,
                2 => &mut retry.initial_ms,
                3 => &mut retry.coefficient_percent,
                4 => &mut retry.cap_ms,
                _ => continue,
            };
            match u32::try_from(field.uint()?).unwrap_or(u32::MAX) {
                0 => {}
                value => *to = value,
            }
        }
        Ok(retry)
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.uint(1, self.max_attempts.into());
        to.uint(2, self.initial_ms.into());
        to.uint(3, self.coefficient_percent.into());
        to.uint(4, self.cap_ms.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap() {
        let retry = Retry::default();
        let waits: Vec<_> = (1..=6).map(|attempt| retry.wait_ms(attempt)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        let steep = Retry { coefficient_percent: 10_000, cap_ms: MAX_RETRY_WAIT_MS, ..retry };
        assert_eq!(steep.wait_ms(u32::MAX), u64::from(MAX_RETRY_WAIT_MS));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = Retry { coefficient_percent: 50, ..Retry::default() };
        assert_eq!(wrong.check().unwrap_err().0, "retry.coefficient_percent");
        assert_eq!(Retry::default().check(), Ok(()));
    }
}
