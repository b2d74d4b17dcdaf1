//! `mcp-broker cert`: a private certificate authority, and what it issues.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use mcp_broker::auth::{Issued, Purpose, create_private, issue_private};

use super::files::{Failure, read_secret, write_new};

const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
const DAY_S: u64 = 24 * 60 * 60;
/// A certificate's dates end in the year 9999.
const MAX_DAYS: u64 = 100 * 366;

/// Make a private certificate authority, and certificates of brokers, clients and workers
#[derive(Debug, Args)]
pub(super) struct Cert {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ca(Ca),
    Issue(Issue),
}

/// Make an authority: ca.pem, which everybody may have, and ca.key (mode 0600), which nobody else may
#[derive(Debug, Args)]
struct Ca {
    /// Directory for the two; made if it isn't there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How long it lives
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u64).range(1..=MAX_DAYS))]
    days: u64,
}

/// Issue a certificate: NAME.pem, and its key NAME.key (mode 0600)
///
/// For a broker (--server), the names are those and the addresses that peers connect to. For a client
/// or worker (--client) the first name is its identity: a DNS name, or a URI such as
/// spiffe://example.org/shop.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, group = ArgGroup::new("purpose").required(true))]
struct Issue {
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// What it is for; may be given several times
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
    /// For a broker
    #[arg(long, group = "purpose")]
    server: bool,
    /// For a client or worker
    #[arg(long, group = "purpose")]
    client: bool,
    /// How long it lives
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=MAX_DAYS))]
    days: u64,
    /// Directory for the two files [default: that of the authority]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Cert {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Ca(ca) => ca.run(),
            Command::Issue(issue) => issue.run(),
        }
    }
}

impl Ca {
    fn run(self) -> Result<(), Failure> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.dir).map_err(|error| Failure::of(&self.dir, error))?;
        let authority = create_private(days(self.days)).map_err(|error| error.to_string())?;
        let files = (self.dir.join(CA_CERT_FILE), self.dir.join(CA_KEY_FILE));
        write(&files.0, &files.1, &authority)
    }
}

impl Issue {
    fn run(self) -> Result<(), Failure> {
        let key_pem = read_secret(&self.ca.join(CA_KEY_FILE))?;
        let purpose = if self.server { Purpose::Server } else { Purpose::Client };
        let issued = issue_private(&key_pem, purpose, &self.names, days(self.days));
        let issued = issued.map_err(|error| error.to_string())?;
        let out = self.out.unwrap_or(self.ca);
        let name = file_name(&self.names[0]);
        write(&out.join(format!("{name}.pem")), &out.join(format!("{name}.key")), &issued)
    }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY_S)
}

/// The key first: a certificate without one is of no use.
fn write(cert: &Path, key: &Path, issued: &Issued) -> Result<(), Failure> {
    write_new(key, &issued.key_pem, true)?;
    write_new(cert, &issued.cert_pem, false)?;
    eprintln!("wrote {} and {}", cert.display(), key.display());
    Ok(())
}

/// What of a name can be in a file's.
fn file_name(name: &str) -> String {
    let name = name.rsplit_once("://").map_or(name, |(_, rest)| rest);
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
    let name: String = name.chars().map(|it| if is_plain(it) { it } else { '-' }).collect();
    match name.trim_matches('.') {
        "" => "cert".to_owned(),
        name => name.to_owned(),
    }
}
