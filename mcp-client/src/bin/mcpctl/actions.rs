//! `mcpctl actions`: what tasks ask for.

mod degrade;

use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::{connect, signals};

/// Change how the broker deals with actions
#[derive(Debug, Args)]
pub(crate) struct Actions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Degrade(degrade::Degrade),
    Restore(degrade::Restore),
}

impl Actions {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let done = match self.command {
            Command::Degrade(degrade) => degrade.run(&client, global.output, &interrupted).await,
            Command::Restore(restore) => restore.run(&client, global.output, &interrupted).await,
        };
        client.close().await;
        done
    }
}
