//! `mcpctl dlq`: dead letters, the durable tasks that ended otherwise than they should have.

mod act;
mod ls;
mod show;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::{connect, signals};

/// Look at dead letters, have them done again, and drop them
///
/// A durable task that ends otherwise than ok or cancelled is kept as a dead letter, with its input and
/// the reason: the last 10,000 or 64 MiB, for a week (default).
#[derive(Debug, Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Show(show::Show),
    Replay(act::Replay),
    Drop(act::Drop),
}

impl Dlq {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let output = global.output;
        let done = match self.command {
            Command::Ls(ls) => ls.run(&client, output, &interrupted).await,
            Command::Show(show) => show.run(&client, output, &interrupted).await,
            Command::Replay(replay) => replay.run(&client, output, &interrupted).await,
            Command::Drop(drop) => drop.run(&client, output, &interrupted).await,
        };
        client.close().await;
        done
    }
}
