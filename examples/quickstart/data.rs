//! The tasks: article 1 of the Universal Declaration of Human Rights in 60 languages.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};

use mcp_proto::json::JsonTask;
use serde::Deserialize;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tasks.jsonl");

/// Lines in the file.
pub(crate) const LINES: usize = 240;

/// One of them is not a task.
pub(crate) const BAD_LINES: usize = 1;

/// A task, and how it should end.
pub(crate) struct Expected {
    pub(crate) json: JsonTask,
    pub(crate) end: End,
}

/// How a task should end.
#[derive(Deserialize)]
pub(crate) struct End {
    pub(crate) outcome: String,
    /// The result, white space around it aside.
    pub(crate) body: Option<String>,
    /// The error's code.
    pub(crate) code: Option<String>,
}

/// Fields that begin with `x-` are the writer's own: they don't go to the broker.
#[derive(Deserialize)]
struct Own {
    #[serde(rename = "x-expect")]
    end: End,
}

/// The tasks of the file, and what is wrong with the lines that are not tasks.
pub(crate) fn read() -> Result<(Vec<Expected>, Vec<String>), Box<dyn Error>> {
    let file = BufReader::new(File::open(FILE).map_err(|error| format!("{FILE}: {error}"))?);
    let (mut tasks, mut bad_lines) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(file.lines()) {
        let line = line?;
        match JsonTask::from_json(&line) {
            Ok(json) => {
                let Own { end } = serde_json::from_str(&line)?;
                tasks.push(Expected { json, end });
            }
            Err(error) => bad_lines.push(format!("line {number}: {error}")),
        }
    }
    Ok((tasks, bad_lines))
}
