//! Where a task's input comes from.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use mcp_client::TaskBuilder;
use tokio::fs::File;

use crate::exit::Failure;

#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// The task's input
    #[arg(long, value_name = "TEXT", group = "input")]
    data: Option<String>,

    /// File with the task's input, of any length that the broker takes (1 GiB when its operator does
    /// not say otherwise); it is read as the worker does
    #[arg(long, value_name = "FILE", group = "input")]
    file: Option<PathBuf>,

    /// Read the task's input from stdin
    #[arg(value_name = "-", group = "input", value_parser = ["-"], hide_possible_values = true)]
    stdin: Option<String>,
}

pub(super) enum Input {
    Data(String),
    /// And how long it is, if it says.
    File(File, Option<u64>),
    Stdin,
}

impl InputArgs {
    /// To be called before there is a connection, so that a wrong name is told at once.
    pub(super) async fn open(&self) -> Result<Input, Failure> {
        match (&self.data, &self.file, &self.stdin) {
            (Some(data), _, _) => Ok(Input::Data(data.clone())),
            (None, Some(path), _) if path.as_os_str() != "-" => {
                Input::open(path).await.map_err(|error| {
                    let path = path.display();
                    Failure::usage(format_args!("cannot read the input from {path}: {error}"))
                })
            }
            (None, Some(_), _) | (None, None, Some(_)) => Ok(Input::Stdin),
            (None, None, None) => Ok(Input::Data(String::new())),
        }
    }
}

impl Input {
    async fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).await?;
        let about = file.metadata().await?;
        if about.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Of a pipe, and of what the system makes up as it is read, it says nothing.
        let bytes = Some(about.len()).filter(|bytes| about.is_file() && *bytes > 0);
        Ok(Input::File(file, bytes))
    }

    pub(super) fn of(self, task: TaskBuilder) -> TaskBuilder {
        match self {
            Input::Data(data) => task.body(data),
            Input::File(file, None) => task.input_reader(file),
            Input::File(file, Some(bytes)) => task.input_reader(file).input_bytes(bytes),
            Input::Stdin => task.input_reader(tokio::io::stdin()),
        }
    }
}
