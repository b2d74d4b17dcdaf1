//! `mcp-broker health`: the answer of a probe, for what can run a program but has no HTTP client.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use clap::Args;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use mcp_broker::AdminAddr;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::files::Failure;
use super::settings::Settings;

/// Longer than a broker with much to do takes.
const LIMIT: Duration = Duration::from_secs(5);

/// Longer than what a probe answers.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

const EXAMPLES: &str = "\
The admin listener is that of the broker that would run with the same file and variables.

Examples:
  mcp-broker health --admin 9447              is it ready? /readyz
  mcp-broker health --config broker.toml --live
  HEALTHCHECK CMD [\"mcp-broker\", \"health\"]    in a Dockerfile

Exit codes:
  0  it is; what it answered is on stdout
  1  it is not, or does not answer within 5 s; why is on stderr
  2  wrong usage or configuration";

/// Ask a running broker on this machine whether it is ready
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Health {
    /// Whether it is to be left running, instead: /livez
    #[arg(long, conflicts_with = "durable")]
    live: bool,

    /// Whether it takes durable tasks as well: /readyz?require=durable
    #[arg(long)]
    durable: bool,

    /// Configuration, TOML
    #[arg(long, value_name = "FILE", env = "MCP_CONFIG")]
    config: Option<PathBuf>,

    /// Address of the admin listener, when the configuration doesn't say it
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    admin: Option<AdminAddr>,
}

impl Health {
    pub(super) fn run(self) -> Result<(), Failure> {
        let loaded = Settings::admin_at(self.admin).layers(self.config).load();
        let config = loaded.map_err(|error| Failure::usage(error.to_string()))?.config;
        let Some(admin) = config.admin else {
            return Err(Failure::usage("there is no admin listener to ask: give --admin 9447"));
        };
        let path = match (self.live, self.durable) {
            (true, _) => "/livez",
            (false, true) => "/readyz?require=durable",
            (false, false) => "/readyz",
        };
        let address = from_here(admin.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let asked = runtime.block_on(async { timeout(LIMIT, ask(address, path)).await });
        let problem =
            |problem: &dyn std::fmt::Display| format!("http://{address}{path}: {problem}");
        match asked {
            Ok(Ok((true, answer))) => {
                let told = std::io::stdout().lock().write_all(answer.as_bytes());
                told.map_err(|error| error.to_string().into())
            }
            Ok(Ok((false, answer))) => Err(problem(&answer.trim_end()).into()),
            Ok(Err(error)) => Err(problem(&error).into()),
            Err(late) => Err(problem(&late).into()),
        }
    }
}

/// Whether the answer is a good one, and what it says.
async fn ask(
    address: SocketAddr,
    path: &str,
) -> Result<(bool, String), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(HOST, address.to_string()).body(Body::empty())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let is_good = answer.status().is_success();
        let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await?;
        Ok((is_good, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // When it ends first, the answer is there, or never comes.
        _ = &mut connection => answer.await,
    }
}

/// Where a program on this machine reaches what listens there.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
