//! `mcp-broker token`: keys that sign tokens, and tokens.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use mcp_broker::auth::{Audience, Claims, KeySet, SigningKey, inspect};
use ring::rand::{SecureRandom, SystemRandom};

use super::files::{Failure, duration, now_s, read_secret, write_new};

/// Make keys and tokens (JSON Web Tokens signed with EdDSA) that prove who clients and workers are
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(Keygen),
    Issue(Issue),
    Inspect(Inspect),
}

/// Make a key: DIR/token.key (mode 0600), which signs, and DIR/token-keys.json for auth.token_keys
#[derive(Debug, Args)]
struct Keygen {
    /// Directory for the two
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Issue a token
///
/// It is printed, or written to a file (mode 0600), which is replaced whole: clients and workers that
/// have it as --token-file take the new one when they connect again.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Issue {
    /// File with the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Whom it is for: the identity
    #[arg(long, value_name = "IDENTITY")]
    sub: String,
    /// A role of the policy; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// How long it lives: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    life: Duration,
    /// What auth.token_audience of the broker asks for
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Write it to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Show what a token says, and with --keys whether it holds
#[derive(Debug, Args)]
struct Inspect {
    /// File with the token
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// File with the public keys, as of auth.token_keys
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Keygen(keygen) => keygen.run(),
            Command::Issue(issue) => issue.run(),
            Command::Inspect(inspect) => inspect.run(),
        }
    }
}

impl Keygen {
    fn run(self) -> Result<(), Failure> {
        let key = SigningKey::generate()?;
        let (private, public) = (self.dir.join("token.key"), self.dir.join("token-keys.json"));
        write_new(&private, &key.to_pem(), true)?;
        write_new(&public, &format!("{}\n", key.public_json()), false)?;
        eprintln!("wrote {} and {}", private.display(), public.display());
        Ok(())
    }
}

impl Issue {
    fn run(self) -> Result<(), Failure> {
        let key = SigningKey::from_pem(&read_secret(&self.key)?)
            .map_err(|problem| Failure::of(&self.key, problem))?;
        let mut id = [0; 16];
        let random = SystemRandom::new().fill(&mut id);
        random.map_err(|_| "the system gives no random numbers".to_owned())?;
        let iat = now_s();
        let claims = Claims {
            sub: self.sub,
            exp: iat + self.life.as_secs(),
            iat,
            nbf: None,
            jti: Some(id.iter().map(|byte| format!("{byte:02x}")).collect()),
            aud: self.audience.map(Audience::One),
            roles: self.roles,
        };
        let token = key.sign(&claims);
        // As a broker with the default settings would see it.
        let keys = KeySet::parse(&key.public_json())?;
        Claims::verify(&token, &keys, iat).map_err(|error| Failure::usage(error.to_string()))?;
        let Some(out) = self.out else {
            return writeln!(io::stdout(), "{token}").map_err(|error| error.to_string().into());
        };
        // Beside it first, so that whoever reads it sees the old or the new one whole.
        let mut new = out.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let _ = std::fs::remove_file(&new);
        write_new(&new, &format!("{token}\n"), true)?;
        std::fs::rename(&new, &out).map_err(|error| Failure::of(&out, error))
    }
}

impl Inspect {
    fn run(self) -> Result<(), Failure> {
        let token = read_secret(&self.file)?;
        let token = token.trim();
        let claims = inspect(token).map_err(|error| Failure::of(&self.file, error))?;
        let text = serde_json::to_string_pretty(&claims).map_err(|error| error.to_string())?;
        writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())?;
        let Some(path) = self.keys else { return Ok(()) };
        let keys = std::fs::read_to_string(&path).map_err(|error| Failure::of(&path, error))?;
        let keys = KeySet::parse(&keys).map_err(|problem| Failure::of(&path, problem))?;
        let claims = Claims::verify(token, &keys, now_s());
        let claims = claims.map_err(|error| Failure::of(&self.file, error))?;
        eprintln!("it holds for {} s more", claims.exp - now_s().min(claims.exp));
        Ok(())
    }
}
