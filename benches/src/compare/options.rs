//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::peers::Peer;

/// Longest run, s: a slip of the pen is refused.
const MAX_SECS: f64 = 3600.0;

/// What the protocol lets one worker hold at once.
const MAX_IN_FLIGHT: u32 = mcp_proto::limits::MAX_AGENT_ATTEMPTS;

/// Largest body on a lane.
const MAX_PAYLOAD_BYTES: usize = mcp_proto::limits::MAX_BODY_BYTES;

/// Who takes part unless said otherwise.
const PEERS: &str = "mcp,nats,nats-tls,redis,grpc";
const DURABLE_PEERS: &str =
    "mcp-durable,nats-js-sync,nats-js,redis-streams-sync,redis-streams,rabbitmq";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks that outlive every process: peers that store them take part, and the defaults are
    /// `--payload 1024 --slots 0 --rate none`
    #[arg(long)]
    durable: bool,

    /// Who takes part
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST",
          default_value_if("durable", "true", DURABLE_PEERS),
          default_value = PEERS)]
    peers: Vec<Peer>,

    /// Closed loops: tasks at the peer at any time
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values_t = [1, 64, 1024])]
    pub(crate) in_flight: Vec<u32>,

    /// Bytes of each task's input, and of its result
    #[arg(long, value_delimiter = ',', value_name = "LIST",
          default_value_if("durable", "true", "1024"),
          default_values_t = [128, 1024, 16384])]
    pub(crate) payload: Vec<usize>,

    /// A second table with a worker of so many slots, for loads beyond them; 0 for none
    #[arg(long, value_name = "N", default_value_if("durable", "true", "0"), default_value_t = 4)]
    pub(crate) slots: u32,

    /// Open loops: tasks a second, as a number or as a share of what the slower one of two peers is
    /// capable of; "none" for none
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "LIST",
        default_value_if("durable", "true", "none"),
        default_value = "50%,80%"
    )]
    rate: Vec<RateOption>,

    /// Seconds that each run is measured, after half a second of warm-up
    #[arg(long, value_name = "SECS", default_value_t = 3.0)]
    pub(crate) secs: f64,

    /// Runs of everything; what is printed are medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,

    /// Writes compare.json and plots (SVG) to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Where the servers keep their files, on the disk that is to be measured [default: beside this
    /// program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The NATS server [default: the one on the PATH]
    #[arg(long, value_name = "PATH", env = "NATS_SERVER")]
    pub(crate) nats_server: Option<PathBuf>,

    /// The Redis server [default: the one on the PATH]
    #[arg(long, value_name = "PATH", env = "REDIS_SERVER")]
    pub(crate) redis_server: Option<PathBuf>,

    /// The RabbitMQ server: the script that has its plugins beside its directory [default: the one
    /// of the system's package, or on the PATH]
    #[arg(long, value_name = "PATH", env = "RABBITMQ_SERVER")]
    pub(crate) rabbitmq_server: Option<PathBuf>,
}

impl Options {
    /// Before the measured time begins.
    pub(crate) fn warm_up(&self) -> Duration {
        self.measured().min(Duration::from_millis(500))
    }

    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }

    /// Each once, in the order given.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let mut peers = Vec::new();
        for peer in &self.peers {
            if !peers.contains(peer) {
                peers.push(*peer);
            }
        }
        peers
    }

    /// Where the servers keep their files.
    pub(crate) fn dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let program = std::env::current_exe().context("this program's path")?;
        Ok(program.parent().context("this program's directory")?.to_owned())
    }

    pub(crate) fn rates(&self) -> Vec<Rate> {
        self.rate.iter().filter_map(|rate| rate.0).collect()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(self.secs > 0.0 && self.secs <= MAX_SECS) {
            bail!("--secs {}: more than 0 and at most {MAX_SECS} are allowed", self.secs);
        }
        if let Some(wrong) = self.in_flight.iter().find(|it| !(1..=MAX_IN_FLIGHT).contains(*it)) {
            bail!("--in-flight {wrong}: 1 to {MAX_IN_FLIGHT} are allowed");
        }
        if let Some(wrong) = self.payload.iter().find(|it| **it > MAX_PAYLOAD_BYTES) {
            bail!("--payload {wrong}: at most {MAX_PAYLOAD_BYTES} are allowed");
        }
        if self.slots > MAX_IN_FLIGHT {
            bail!("--slots {}: at most {MAX_IN_FLIGHT} are allowed", self.slots);
        }
        Ok(())
    }
}

/// The rate of an open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// Tasks a second.
    Fixed(f64),
    /// Of what the slower one of two peers is capable of, 0 to 1.
    Share(f64),
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Fixed(rate) => write!(f, "{rate}/s"),
            Rate::Share(share) => write!(f, "{:.0} %", share * 100.0),
        }
    }
}

/// A rate, or none.
#[derive(Debug, Clone, Copy, PartialEq)]
struct RateOption(Option<Rate>);

impl FromStr for RateOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let (number, is_share) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let number: f64 =
            number.trim().parse().map_err(|_| "a number, a percentage or \"none\" is needed")?;
        let max = if is_share { 100.0 } else { 1e7 };
        if !(number > 0.0 && number <= max) {
            return Err(format!("more than 0 and at most {max} is allowed"));
        }
        Ok(Self(Some(if is_share { Rate::Share(number / 100.0) } else { Rate::Fixed(number) })))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let program = std::iter::once(&"compare");
        Cli::try_parse_from(program.chain(arguments)).unwrap().options
    }

    #[test]
    fn durable_has_defaults_of_its_own() {
        let fast = options(&[]);
        assert_eq!(fast.peers()[..2], [Peer::Mcp, Peer::Nats]);
        assert_eq!((fast.payload.len(), fast.slots, fast.rates().len()), (3, 4, 2));
        let durable = options(&["--durable"]);
        assert_eq!(durable.peers()[..2], [Peer::McpDurable, Peer::NatsJsSync]);
        assert!(durable.peers().iter().all(|peer| peer.guarantee().is_some()));
        assert_eq!(
            (&durable.payload[..], durable.slots, durable.rates()),
            (&[1024][..], 0, vec![])
        );
        let both = options(&["--durable", "--peers", "mcp,mcp-durable", "--payload", "128"]);
        assert_eq!((both.peers(), both.payload), (vec![Peer::Mcp, Peer::McpDurable], vec![128]));
    }

    #[test]
    fn a_rate_is_a_number_or_a_share() {
        let parse = |text: &str| text.parse::<RateOption>().map(|rate| rate.0);
        assert_eq!(parse("5000"), Ok(Some(Rate::Fixed(5000.0))));
        assert_eq!(parse("80%"), Ok(Some(Rate::Share(0.8))));
        assert_eq!(parse("none"), Ok(None));
        for wrong in ["", "0", "-1", "101%", "NaN", "inf", "fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
