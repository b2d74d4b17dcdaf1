//! The broker's epoch: grows with every start, so that attempts of an earlier one can't be
//! mistaken for this one's.

use super::clock;
use super::error::StartError;
use super::state_dir::{Access, StateDir};

const FILE: &str = "epoch";

/// The epoch of a start.
pub(crate) struct Epoch {
    pub(crate) epoch: u64,
    /// Whether there was a start before it, of which peers may be about.
    pub(crate) is_restart: bool,
}

impl Epoch {
    /// The next one. With a state directory it is larger than any before, whatever the clock says,
    /// and on disk before this returns. Without one it is the time of day in ms; the first start in
    /// a new directory begins there too, so that a directory that was deleted does no harm.
    pub(crate) fn next(state: Option<&StateDir>) -> Result<Self, StartError> {
        let wall_ms = clock::since_1970().as_millis() as u64;
        let Some(state) = state else {
            return Ok(Self { epoch: wall_ms, is_restart: false });
        };
        let last = state.read(FILE)?;
        let epoch = match &last {
            None => wall_ms,
            Some(text) => match text.trim().parse::<u64>() {
                Ok(last) if last < u64::MAX => last + 1,
                _ => {
                    let text = text.clone();
                    return Err(StartError::Epoch { path: state.file(FILE), text });
                }
            },
        };
        state.replace(FILE, &format!("{epoch}\n"), Access::Shared)?;
        Ok(Self { epoch, is_restart: last.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_larger_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = Epoch::next(Some(&state)).unwrap();
        assert!(!first.is_restart);
        let second = Epoch::next(Some(&state)).unwrap();
        assert_eq!((second.epoch, second.is_restart), (first.epoch + 1, true));
        state.replace(FILE, "99999999999999\n", Access::Shared).unwrap();
        assert_eq!(Epoch::next(Some(&state)).unwrap().epoch, 100_000_000_000_000);
    }

    #[test]
    fn a_damaged_file_is_told_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.replace(FILE, "seven", Access::Shared).unwrap();
        let error = Epoch::next(Some(&state)).err().unwrap();
        assert!(error.to_string().contains("epoch"), "{error}");
        assert_eq!(state.read(FILE).unwrap().as_deref(), Some("seven"));
    }
}
