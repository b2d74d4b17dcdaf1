//! The broker's epoch: grows with every start, so that attempts of an earlier one can't be
//! mistaken for this one's.

use super::clock;
use super::error::StartError;
use super::state_dir::{Access, StateDir};

const FILE: &str = "epoch";

/// The epoch of this start. With a state directory it is larger than any before, whatever the
/// clock says, and on disk before this returns. Without one it is the time of day in ms; the first
/// start in a new directory begins there too, so that a directory that was deleted does no harm.
pub(crate) fn next(state: Option<&StateDir>) -> Result<u64, StartError> {
    let wall_ms = clock::since_1970().as_millis() as u64;
    let Some(state) = state else {
        return Ok(wall_ms);
    };
    let epoch = match state.read(FILE)? {
        None => wall_ms,
        Some(text) => match text.trim().parse::<u64>() {
            Ok(last) if last < u64::MAX => last + 1,
            _ => return Err(StartError::Epoch { path: state.file(FILE), text }),
        },
    };
    state.replace(FILE, &format!("{epoch}\n"), Access::Shared)?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_larger_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = next(Some(&state)).unwrap();
        assert_eq!(next(Some(&state)).unwrap(), first + 1);
        state.replace(FILE, "99999999999999\n", Access::Shared).unwrap();
        assert_eq!(next(Some(&state)).unwrap(), 100_000_000_000_000);
    }

    #[test]
    fn a_damaged_file_is_told_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.replace(FILE, "seven", Access::Shared).unwrap();
        let error = next(Some(&state)).unwrap_err();
        assert!(error.to_string().contains("epoch"), "{error}");
        assert_eq!(state.read(FILE).unwrap().as_deref(), Some("seven"));
    }
}
