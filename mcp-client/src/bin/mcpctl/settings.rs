//! Which broker, and who this is: what each place says of it, and what counts.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use mcp_client::{ConnectError, Endpoint};
use serde::{Deserialize, Serialize};

use crate::contexts::ContextName;

/// What one place says: the command line, the environment or a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// State directory of a local broker: tells its address and certificate [env: MCP_STATE]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Broker")]
    pub(crate) state: Option<PathBuf>,

    /// Address of the broker [env: MCP_BROKER]
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Broker")]
    pub(crate) broker: Option<String>,

    /// PEM file with the certificate authority to trust [env: MCP_CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Broker")]
    pub(crate) ca: Option<PathBuf>,

    /// Name in the broker's certificate, if that is not its address
    #[arg(long, global = true, value_name = "NAME", help_heading = "Broker")]
    pub(crate) server_name: Option<String>,

    /// File with the token that proves who you are, mode 0600 [env: MCP_TOKEN_FILE; or the token
    /// itself: MCP_TOKEN]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Broker")]
    pub(crate) token_file: Option<PathBuf>,

    /// PEM file with the certificate that proves who you are [env: MCP_CERT]
    #[arg(long, global = true, value_name = "FILE", requires = "key", help_heading = "Broker")]
    pub(crate) cert: Option<PathBuf>,

    /// PEM file with its private key, mode 0600 [env: MCP_KEY]
    #[arg(long, global = true, value_name = "FILE", requires = "cert", help_heading = "Broker")]
    pub(crate) key: Option<PathBuf>,
}

impl Settings {
    /// Those of environment variables; one that is empty does not count.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        Self {
            state: path("MCP_STATE"),
            broker: path("MCP_BROKER").and_then(|it| it.into_os_string().into_string().ok()),
            ca: path("MCP_CA"),
            server_name: None,
            token_file: path("MCP_TOKEN_FILE"),
            cert: path("MCP_CERT"),
            key: path("MCP_KEY"),
        }
    }

    /// Whether it says where a broker is.
    pub(crate) fn names_broker(&self) -> bool {
        self.broker.is_some() || self.state.is_some()
    }

    /// Whether a certificate is there without its key, or the other way round.
    pub(crate) fn has_half_a_certificate(&self) -> bool {
        self.cert.is_some() != self.key.is_some()
    }

    /// Applies `of` to each path.
    pub(crate) fn map_paths(mut self, of: impl Fn(PathBuf) -> PathBuf) -> Self {
        let Self { state, ca, token_file, cert, key, broker: _, server_name: _ } = &mut self;
        for path in [state, ca, token_file, cert, key] {
            *path = path.take().map(&of);
        }
        self
    }
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Variable,
    Context(ContextName),
    Default,
}

/// What is said at one place. Where levels are listed, what comes first counts.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub(crate) origin: Origin,
    pub(crate) settings: Settings,
}

/// A value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Where a broker's address, or the authority to trust, is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place<T> {
    /// A state directory has it.
    State(PathBuf),
    /// It was given itself.
    Given(T),
}

/// The token that proves who this is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Token {
    File(PathBuf),
    /// Of `MCP_TOKEN`.
    Text(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::File(path) => f.debug_tuple("File").field(path).finish(),
            Token::Text(_) => f.write_str("Text"),
        }
    }
}

/// What counts, of all levels.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) broker: Setting<Place<String>>,
    pub(crate) ca: Setting<Place<PathBuf>>,
    pub(crate) server_name: Option<Setting<String>>,
    pub(crate) token: Option<Setting<Token>>,
    /// A certificate and its key.
    pub(crate) certificate: Option<Setting<(PathBuf, PathBuf)>>,
}

/// Of each setting that of the first level that has it. An address, or an authority, counts over the
/// state directory of the same level.
pub(crate) fn choose(levels: &[Level], token_text: Option<String>) -> Result<Chosen, &'static str> {
    let broker = first(levels, |it| match (&it.broker, &it.state) {
        (Some(address), _) => Some(Place::Given(address.clone())),
        (None, Some(dir)) => Some(Place::State(dir.clone())),
        (None, None) => None,
    });
    let broker = broker.ok_or(
        "which broker? say --state DIR, or --broker HOST:PORT and --ca FILE, or --context NAME",
    )?;
    let ca = first(levels, |it| match (&it.ca, &it.state) {
        (Some(ca), _) => Some(Place::Given(ca.clone())),
        (None, Some(dir)) => Some(Place::State(dir.clone())),
        (None, None) => None,
    });
    // The default state directory has the authority of the broker there, and of no other.
    let ca = ca.filter(|ca| ca.origin != Origin::Default || broker.origin == Origin::Default).ok_or(
        "which certificate authority does the broker have? say --ca FILE, or --state DIR if it was \
         started with --dev",
    )?;
    let token = levels.iter().find_map(|level| {
        let file = level.settings.token_file.clone().map(Token::File);
        let text = token_text.clone().filter(|_| level.origin == Origin::Variable);
        let value = file.or(text.map(Token::Text))?;
        Some(Setting { value, origin: level.origin.clone() })
    });
    let server_name = first(levels, |it| it.server_name.clone());
    let certificate = first(levels, |it| it.cert.clone().zip(it.key.clone()));
    Ok(Chosen { broker, ca, server_name, token, certificate })
}

fn first<T>(levels: &[Level], of: impl Fn(&Settings) -> Option<T>) -> Option<Setting<T>> {
    levels.iter().find_map(|level| {
        of(&level.settings).map(|value| Setting { value, origin: level.origin.clone() })
    })
}

impl Chosen {
    /// As the SDK takes it. Reads the files of the state directory and of the authority.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let mut endpoint = match (&self.broker.value, &self.ca.value) {
            (Place::State(dir), Place::State(ca_dir)) if dir == ca_dir => {
                Endpoint::from_state_dir(dir)?
            }
            (Place::State(dir), Place::State(ca_dir)) => {
                Endpoint::from_state_dir(dir)?.ca_file(ca_dir.join("ca.pem"))?
            }
            (Place::State(dir), Place::Given(ca)) => Endpoint::from_state_dir(dir)?.ca_file(ca)?,
            // Its certificate is for "localhost".
            (Place::Given(address), Place::State(dir)) => {
                Endpoint::new(address).server_name("localhost").ca_file(dir.join("ca.pem"))?
            }
            (Place::Given(address), Place::Given(ca)) => Endpoint::new(address).ca_file(ca)?,
        };
        match self.token.as_ref().map(|it| &it.value) {
            Some(Token::File(path)) => endpoint = endpoint.token_file(path),
            Some(Token::Text(text)) => endpoint = endpoint.token(text.as_str()),
            None => {}
        }
        if let Some(Setting { value: (cert, key), .. }) = &self.certificate {
            endpoint = endpoint.certificate_files(cert, key);
        }
        Ok(match &self.server_name {
            Some(name) => endpoint.server_name(&name.value),
            None => endpoint,
        })
    }
}

/// Where `mcp-broker serve --dev` keeps its state when it isn't told.
pub(crate) fn default_state_dir() -> Option<PathBuf> {
    let state = xdg_dir("XDG_STATE_HOME", ".local/state")?;
    Some(state.join("mcp-broker"))
}

/// A directory of the XDG base directory specification: a variable's, if it is absolute, or else one in
/// the home directory.
pub(crate) fn xdg_dir(variable: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(in_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(origin: Origin, state: &str, broker: &str, ca: &str) -> Level {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let settings = Settings {
            state: some(state).map(Into::into),
            broker: some(broker),
            ca: some(ca).map(Into::into),
            ..Settings::default()
        };
        Level { origin, settings }
    }

    fn chosen(levels: &[Level]) -> String {
        let it = choose(levels, None).unwrap();
        format!("{:?} {:?}", it.broker.value, it.ca.value)
    }

    #[test]
    fn what_comes_first_counts() {
        let flags = |state, broker, ca| level(Origin::Flag, state, broker, ca);
        let environment = level(Origin::Variable, "e", "e:1", "e.pem");
        let default = level(Origin::Default, "d", "", "");
        let of = |flags| chosen(&[flags, environment.clone(), default.clone()]);
        assert_eq!(chosen(std::slice::from_ref(&default)), r#"State("d") State("d")"#);
        assert_eq!(of(flags("", "", "")), r#"Given("e:1") Given("e.pem")"#);
        assert_eq!(of(flags("f", "", "")), r#"State("f") State("f")"#);
        assert_eq!(of(flags("f", "", "f.pem")), r#"State("f") Given("f.pem")"#);
        assert_eq!(of(flags("", "f:1", "")), r#"Given("f:1") Given("e.pem")"#);
        // A proxy in front of a broker whose state directory is known.
        let state = level(Origin::Variable, "e", "", "");
        assert_eq!(chosen(&[flags("", "f:1", ""), state]), r#"Given("f:1") State("e")"#);
        assert_eq!(chosen(&[flags("", "", "f.pem"), default]), r#"State("d") Given("f.pem")"#);
    }

    #[test]
    fn an_address_without_an_authority_is_asked_for_one() {
        let address = level(Origin::Flag, "", "f:1", "");
        let default = level(Origin::Default, "d", "", "");
        assert!(choose(&[address, default], None).unwrap_err().contains("--ca FILE"));
        assert!(choose(&[], None).unwrap_err().contains("--state DIR"));
    }

    #[test]
    fn credentials_are_those_of_the_first_place_that_has_some() {
        let mut flags = level(Origin::Flag, "f", "", "");
        let environment = level(Origin::Variable, "", "", "");
        let context = Origin::Context("prod".parse().unwrap());
        let mut below = level(context.clone(), "", "c:1", "c.pem");
        below.settings.token_file = Some("c.token".into());
        (below.settings.cert, below.settings.key) = (Some("c.pem".into()), Some("c.key".into()));
        let levels = |flags: &Level| [flags.clone(), environment.clone(), below.clone()];

        let it = choose(&levels(&flags), None).unwrap();
        assert_eq!(it.token.unwrap().value, Token::File("c.token".into()));
        assert_eq!(it.certificate.unwrap().origin, context);
        let it = choose(&levels(&flags), Some("s3cret".to_owned())).unwrap();
        assert_eq!(it.token.as_ref().unwrap().origin, Origin::Variable);
        assert!(!format!("{it:?}").contains("s3cret"));
        flags.settings.token_file = Some("f.token".into());
        let it = choose(&levels(&flags), Some("s3cret".to_owned())).unwrap();
        assert_eq!(it.token.unwrap().origin, Origin::Flag);
    }

    #[test]
    fn variables_that_are_empty_do_not_count() {
        let of = |name: &str| match name {
            "MCP_BROKER" => Some("e:1".into()),
            "MCP_STATE" => Some(OsString::new()),
            "MCP_CERT" => Some("e.pem".into()),
            _ => None,
        };
        let it = Settings::from_env(of);
        assert_eq!((it.state.clone(), it.broker.as_deref()), (None, Some("e:1")));
        assert!(it.has_half_a_certificate());
    }
}
