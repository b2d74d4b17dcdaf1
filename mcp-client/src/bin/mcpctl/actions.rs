//! `mcpctl actions`: the actions that the broker knows, and the rules of each, which can be changed.

mod degrade;
mod ls;
mod rules;
mod set;
mod show;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::{connect, signals};

/// Look at actions, and change how the broker deals with them while it runs
#[derive(Debug, Args)]
pub(crate) struct Actions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Show(show::Show),
    Set(set::Set),
    Reset(set::Reset),
    Degrade(degrade::Degrade),
    Restore(degrade::Restore),
}

impl Actions {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let output = global.output;
        let done = match self.command {
            Command::Ls(ls) => ls.run(&client, output, &interrupted).await,
            Command::Show(show) => show.run(&client, output, &interrupted).await,
            Command::Set(set) => set.run(&client, output, &interrupted).await,
            Command::Reset(reset) => reset.run(&client, output, &interrupted).await,
            Command::Degrade(degrade) => degrade.run(&client, output, &interrupted).await,
            Command::Restore(restore) => restore.run(&client, output, &interrupted).await,
        };
        client.close().await;
        done
    }
}
