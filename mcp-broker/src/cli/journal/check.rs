//! `mcp-broker journal check`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use mcp_broker::journal::{Inspection, SegmentView};

use super::text::{count, table};
use super::{Dir, EXIT_UNSOUND, Failure, Looked, State, of};

const HELP: &str = "\
Examples:
  mcp-broker journal check /var/lib/mcp-broker
  mcp-broker journal check state && echo sound

Exit status:
    0  sound: a broker opens it
    1  damaged, or can't be read: a broker refuses it, and changes nothing
    2  there is no journal there; also: wrong arguments";

/// Check every byte of a journal
///
/// Lists its segments with their entries, those that still count, and what is wrong with them, by
/// byte. An end that was never synced, as a crash leaves it, is nothing wrong: it was not
/// acknowledged to anybody, and the next start drops it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(super) struct Check {
    #[command(flatten)]
    dir: Dir,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Looked { path, is_in_use, inspection } = self.dir.look()?;
        let mut to = io::stdout().lock();
        writeln!(to, "{}", path.display())?;
        if is_in_use {
            writeln!(to, "in use: a broker writes to it; this is how it was at some moment")?;
        }
        writeln!(to, "{}", segments(&inspection, is_in_use))?;
        writeln!(to, "{}", summary(&inspection))?;
        for problem in problems(&inspection) {
            writeln!(to, "DAMAGED: {problem}")?;
        }
        if inspection.is_sound() {
            writeln!(to, "sound")?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(
            to,
            "a broker refuses to start with it; what can still be read:\n  mcp-broker journal export {}",
            path.display()
        )?;
        Ok(ExitCode::from(EXIT_UNSOUND))
    }
}

fn segments(inspection: &Inspection, is_in_use: bool) -> String {
    let header = ["SEGMENT", "SCHEMA", "BYTES", "ENTRIES", "COUNTING", "STATE"];
    let row = |it: &SegmentView| {
        [
            format!("{:016}", it.number),
            it.schema.map_or("?".to_owned(), |schema| schema.to_string()),
            it.file_bytes.to_string(),
            it.entries.to_string(),
            it.live_entries.to_string(),
            state(it, is_in_use),
        ]
    };
    let numbers = ["SCHEMA", "BYTES", "ENTRIES", "COUNTING"];
    table(header, &numbers, inspection.segments.iter().map(row))
}

fn state(it: &SegmentView, is_in_use: bool) -> String {
    match (&it.damage, &it.torn) {
        (Some(_), _) => "damaged".to_owned(),
        (None, Some(torn)) if is_in_use => format!("being written from byte {} on", torn.start),
        (None, Some(torn)) => format!(
            "{} bytes from byte {} on were never synced; the next start drops them",
            torn.end - torn.start,
            torn.start
        ),
        (None, None) => "ok".to_owned(),
    }
}

fn summary(inspection: &Inspection) -> String {
    let records: Vec<_> =
        inspection.records.iter().filter_map(|found| of(found.record.as_ref().ok()?)).collect();
    let of_state = |state| records.iter().filter(|(it, _)| *it == state).count();
    format!(
        "{}, {} ended, {} settled, {}; {} bytes of {} count",
        count(of_state(State::Pending), "pending task", "pending tasks"),
        of_state(State::Ended),
        of_state(State::Settled),
        count(of_state(State::Dead), "dead letter", "dead letters"),
        inspection.records.iter().map(|found| found.bytes).sum::<u64>(),
        inspection.segments.iter().map(|segment| segment.file_bytes).sum::<u64>(),
    )
}

/// What is wrong, a line each.
pub(super) fn problems(inspection: &Inspection) -> Vec<String> {
    let missing = inspection.missing.iter().map(|it| format!("segment {it:016} is missing"));
    let damaged = inspection.segments.iter().flat_map(|it| {
        let places = it.unreadable.iter().map(|place| {
            format!(
                "segment {:016}: bytes {} to {} can't be read",
                it.number,
                place.start,
                place.end - 1
            )
        });
        let damage = it.damage.iter().map(|damage| format!("segment {:016}: {damage}", it.number));
        damage.chain(places)
    });
    let odd = inspection.records.iter().filter_map(|found| {
        let problem = found.record.as_ref().err()?;
        let (segment, offset) = (found.segment, found.offset);
        Some(format!("segment {segment:016}: the entry at byte {offset} is no record: {problem}"))
    });
    missing.chain(damaged).chain(odd).collect()
}
