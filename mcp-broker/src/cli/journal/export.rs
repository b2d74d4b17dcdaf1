//! `mcp-broker journal export`.

mod line;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Args;

use super::check::problems;
use super::text::count;
use super::{Dir, EXIT_UNSOUND, Failure, Looked, State, now_wall_ms, of};

const HELP: &str = "\
Examples:
  mcp-broker journal export /var/lib/mcp-broker > journal.jsonl
  mcp-broker journal export state --only pending | mcpctl send --file -
  mcp-broker journal export state --only dead | jq -c '.ttl = 600' | mcpctl send --file -
  mcp-broker journal export state --only ended | jq -r 'select(.task_id == \"t-1\") | .body'

A line of a pending task or a dead letter:
  {\"mcp_version\":\"1.0\",\"task_id\":\"t-1\",\"action\":\"upper\",\"payload\":{\"text\":\"hello\"},\"ttl\":17.5,
   \"delivery\":\"durable\",\"x-state\":\"pending\",\"x-identity\":\"anonymous\",\"x-deadline_wall_ms\":…}
of an outcome:
  {\"x-state\":\"ended\",\"task_id\":\"t-2\",\"outcome\":\"ok\",\"executed\":\"yes\",\"body\":\"HELLO\",…}

Exit status:
    0  all of it was exported
    1  what can be read of a damaged journal was exported, the rest is told on stderr; or it
       can't be read
    2  there is no journal there; also: wrong arguments
  141  the reader of standard output went away";

/// Write what a journal has as JSON, one record a line, also of a damaged journal
///
/// Pending tasks and dead letters are written in the JSON form that `mcpctl send` reads. The ttl of a
/// pending task is what remains of it, or 0.001 when its deadline is past. One whose input is neither JSON
/// nor text, whatever its content type says, has no such form: it has x-payload_base64, and all
/// of the task in protobuf (mcp.v1.Task) as x-task_base64. Outcomes are written as `mcpctl send` prints
/// them.
///
/// After damage it goes on with the next entry that can be read. What was lost may have been
/// newer: a task that is written as pending may have ended.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(super) struct Export {
    #[command(flatten)]
    dir: Dir,

    /// Only these; may be given more than once
    #[arg(long, value_enum, value_name = "STATE")]
    only: Vec<State>,
}

impl Export {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Looked { is_in_use, inspection, .. } = self.dir.look()?;
        let now = now_wall_ms();
        let mut to = BufWriter::new(io::stdout().lock());
        let (mut written, mut without_form) = (0, 0);
        for record in inspection.records.iter().filter_map(|found| found.record.as_ref().ok()) {
            let Some((state, name)) = of(record) else { continue };
            if !self.only.is_empty() && !self.only.contains(&state) {
                continue;
            }
            let (line, has_form) = line::of(record, name, now)?;
            writeln!(to, "{line}")?;
            written += 1;
            without_form += usize::from(!has_form);
        }
        to.flush()?;

        eprintln!("{}", count(written, "record", "records"));
        if without_form > 0 {
            eprintln!(
                "{} not in the form that `mcpctl send` reads: the input is neither JSON nor text",
                count(without_form, "is", "are")
            );
        }
        if is_in_use {
            eprintln!("a broker writes to the journal: this is how it was at some moment");
        }
        let problems = problems(&inspection);
        for problem in &problems {
            eprintln!("NOT EXPORTED: {problem}");
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNSOUND) })
    }
}
