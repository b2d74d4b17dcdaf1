//! Compares what the processes noted.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Result;

use super::ledger::{self, FAST, Note};

/// What the notes of all processes say together.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) sent: usize,
    pub(super) accepted: usize,
    pub(super) ok: usize,
    pub(super) not_ok: usize,
    pub(super) run_again: usize,
    pub(super) fast: usize,
    pub(super) lost: usize,
    pub(super) twice: usize,
    pub(super) fast_twice: usize,
    /// What must not be, in words.
    pub(super) wrong: Vec<String>,
}

pub(super) fn check(dir: &Path) -> Result<Findings> {
    let mut notes = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "notes") {
            notes.extend(ledger::read(&path)?);
        }
    }
    Ok(compare(&notes))
}

fn compare(notes: &[Note]) -> Findings {
    let mut it = Findings::default();
    let mut runs: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut ended: HashMap<&str, (&str, &str)> = HashMap::new();
    let mut accepted = HashSet::new();
    for note in notes {
        match note {
            Note::Run(id, result) => runs.entry(id).or_default().push(result),
            Note::Sent(id) if id.starts_with(FAST) => it.fast += 1,
            Note::Sent(_) => it.sent += 1,
            Note::Accepted(id) => {
                accepted.insert(id.as_str());
            }
            Note::Ended(id, outcome, result) => {
                if ended.insert(id, (outcome, result)).is_some() {
                    it.twice += 1;
                    it.wrong.push(format!("{id}: its result was accepted twice"));
                }
            }
            Note::Lost(_) | Note::Again(..) => {}
        }
    }
    it.accepted = accepted.len();
    for note in notes {
        match note {
            Note::Lost(id) => {
                it.lost += 1;
                it.wrong.push(format!("{id}: accepted, and then unknown"));
            }
            Note::Again(id, outcome, result) => {
                let first = ended.get(id.as_str());
                if first != Some(&(outcome.as_str(), result.as_str())) {
                    it.twice += 1;
                    it.wrong.push(format!("{id}: {first:?} at first, {outcome} {result} later"));
                }
            }
            _ => {}
        }
    }
    let unknown = accepted.iter().filter(|id| !ended.contains_key(**id));
    for id in unknown {
        it.lost += 1;
        it.wrong.push(format!("{id}: accepted, and no outcome"));
    }
    for (id, (outcome, result)) in &ended {
        let is_fast = id.starts_with(FAST);
        if *outcome != "ok" {
            it.not_ok += usize::from(!is_fast);
            continue;
        }
        it.ok += usize::from(!is_fast);
        if !runs.get(id).is_some_and(|runs| runs.contains(result)) {
            it.wrong.push(format!("{id}: {result} is the result of no run of it"));
        }
    }
    for (id, runs) in &runs {
        if runs.len() > 1 && id.starts_with(FAST) {
            it.fast_twice += 1;
            it.wrong.push(format!("{id}: may run once, and ran as {runs:?}"));
        } else if runs.len() > 1 {
            it.run_again += 1;
        }
    }
    it
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(notes: &[Note]) -> Vec<String> {
        compare(notes).wrong
    }

    fn ended(id: &str, result: &str) -> Note {
        Note::Ended(id.into(), "ok".into(), result.into())
    }

    fn run(id: &str, result: &str) -> Note {
        Note::Run(id.into(), result.into())
    }

    #[test]
    fn a_durable_task_may_run_twice_and_has_one_result() {
        let fine = [Note::Accepted("t".into()), run("t", "a"), run("t", "b"), ended("t", "b")];
        assert_eq!(wrong(&fine), [""; 0]);
        assert_eq!(compare(&fine).run_again, 1);
        assert_eq!(wrong(&[run("t", "a"), ended("t", "a"), ended("t", "a")]).len(), 1);
        let again = Note::Again("t".into(), "ok".into(), "b".into());
        assert_eq!(wrong(&[run("t", "a"), run("t", "b"), ended("t", "a"), again]).len(), 1);
        assert_eq!(wrong(&[run("t", "a"), ended("t", "b")]).len(), 1);
    }

    #[test]
    fn what_was_accepted_and_has_no_outcome_is_lost() {
        assert_eq!(compare(&[Note::Accepted("t".into())]).lost, 1);
        assert_eq!(wrong(&[Note::Sent("t".into())]), [""; 0]);
    }

    #[test]
    fn a_fast_task_runs_once() {
        let notes = [run("fast-t", "a"), run("fast-t", "b")];
        assert_eq!(compare(&notes).fast_twice, 1);
    }
}
