//! The processes of a measurement. Each is this program, told its role, on one thread; it says on
//! stdout when it is ready, or what it measured, in a line of JSON, and ends with its stdin: none
//! outlives the harness.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::attack::{self, Attack};
use crate::crash::{self, Plan};
use crate::fleet::{self, Held};
use crate::load::Load;
use crate::overload::{self, Flood};
use crate::peers::mcp::BrokerSettings;
use crate::peers::{self, Target, grpc, mcp};
use crate::streams::{self, Reading};

/// What a process does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// This broker. Says its [`Target`].
    Broker(BrokerSettings),
    /// A gRPC server, which is its own worker. Says its [`Target`].
    GrpcServer { slots: u32 },
    /// Holds so many connections, so many being opened at once. Says how long opening them took, s.
    Holder { target: Target, held: Held, count: u32, concurrency: u32 },
    /// Echoes tasks. Says `null`.
    Worker { target: Target, slots: u32, prefetch: u32 },
    /// Gives out results in parts. Says `null`.
    PartsWorker { target: Target, slots: u32 },
    /// Reads results in parts. Says a number, see [`Reading`].
    PartsReader { target: Target, reading: Reading },
    /// Has a slot asleep for each task. Says `null`.
    Sleeper { target: Target, slots: u32, prefetch: u32, work: Duration },
    /// Sends more tasks than can be done. Says what it saw.
    Flooder { target: Target, flood: Flood },
    /// Notes what it runs.
    NotingWorker { target: Target, dir: PathBuf, index: u32, slots: u32 },
    /// Sends tasks and notes what it is told. Says `null` when all have their outcomes.
    NotingClient { target: Target, plan: Plan },
    /// Attacks with so many connections. Says what it saw.
    Attacker { target: Target, attack: Attack, connections: u32, time: Duration },
    /// Sends tasks. Says what it [`Measured`](crate::load::Measured).
    Client { target: Target, load: Load },
}

/// Does what `json` says.
pub(crate) fn play(json: &str) -> Result<()> {
    let role: Role = serde_json::from_str(json)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, async {
        tokio::select! {
            result = act(role) => result,
            () = stdin_closed() => Ok(()),
        }
    });
    // A read of stdin can't be cancelled.
    runtime.shutdown_background();
    result
}

async fn act(role: Role) -> Result<()> {
    match role {
        Role::Broker(settings) => {
            // The server itself needs no `LocalSet`, which would poll all of it as one task.
            tokio::spawn(mcp::serve(settings, |target| say(&target))).await?
        }
        Role::GrpcServer { slots } => tokio::spawn(grpc::serve(slots, |it| say(&it))).await?,
        Role::Holder { target, held, count, concurrency } => {
            fleet::hold(target, held, count, concurrency, |secs| say(&secs)).await
        }
        Role::Worker { target, slots, prefetch } => {
            peers::work(target, slots, prefetch, || say(&())).await
        }
        Role::PartsWorker { target, slots } => streams::work(target, slots, || say(&())).await,
        Role::PartsReader { target, reading } => {
            streams::read(target, reading, |number| say(&number)).await
        }
        Role::Sleeper { target, slots, prefetch, work } => {
            overload::work(target, slots, prefetch, work, || say(&())).await
        }
        Role::Flooder { target, flood } => {
            say(&overload::send(target, flood).await?);
            Ok(())
        }
        Role::NotingWorker { target, dir, index, slots } => {
            crash::work(target, dir, index, slots).await
        }
        Role::NotingClient { target, plan } => {
            crash::send(target, plan).await?;
            say(&());
            Ok(())
        }
        Role::Attacker { target, attack, connections, time } => {
            say(&attack::attack(target, attack, connections, time).await?);
            Ok(())
        }
        Role::Client { target, load } => {
            say(&peers::measure(target, load).await?);
            Ok(())
        }
    }
}

fn say(what: &impl Serialize) {
    let line = serde_json::to_string(what).unwrap_or_else(|_| unreachable!("plain data"));
    let mut stdout = std::io::stdout().lock();
    // The harness is gone, or will ask why this process ended.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    while stdin.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
}
