//! `mcpctl context show`: what counts, and why.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::contexts::ContextName;
use crate::exit::{self, Failure};
use crate::global::{Global, Output, Selected, SelectedBy};
use crate::settings::{Chosen, Origin, Place, Setting, Token};
use crate::{report, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl context show
  mcpctl context show staging
  MCP_CA=other.pem mcpctl context show
  mcpctl context show -o json | jq -r .broker.value";

/// Show which broker would be used, as whom, and where each setting comes from
///
/// FROM is an option, an environment variable, a context or `default`. Nothing is connected to; `mcpctl
/// doctor` does. With `-o json`, {context, context_from, left_out, broker, ca, server_name, token, cert,
/// key}, each of the latter {value, from} or null; a token that MCP_TOKEN has is not shown.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Show {
    /// As with --context NAME
    #[arg(value_name = "NAME")]
    name: Option<ContextName>,
}

const STATE: [&str; 2] = ["--state", "MCP_STATE"];

/// What counts, for people and scripts.
#[derive(Debug, Serialize)]
struct Told {
    context: Option<ContextName>,
    context_from: Option<&'static str>,
    /// A broker is named otherwise, so the context does not count.
    left_out: bool,
    broker: Option<Line>,
    ca: Option<Line>,
    server_name: Option<Line>,
    token: Option<Line>,
    cert: Option<Line>,
    key: Option<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    value: String,
    from: String,
}

impl Show {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let mut global = global.clone();
        global.context = self.name.or(global.context);
        let chosen = global.chosen()?;
        let selected = global.context()?.map(|(selected, _)| selected);
        let told = Told::new(selected, &chosen);
        let mut stdout = io::stdout().lock();
        match global.output {
            Output::Json => writeln!(stdout, "{}", report::pretty(&told)?)?,
            Output::Table => writeln!(stdout, "{}", told.table())?,
        }
        Ok(stdout.flush()?)
    }
}

impl Told {
    fn new(selected: Option<Selected>, chosen: &Chosen) -> Self {
        let (context, by) = match selected {
            Some(Selected { name, by }) => (Some(name), Some(by)),
            None => (None, None),
        };
        let names_broker = matches!(chosen.broker.origin, Origin::Flag | Origin::Variable);
        let is_asked_for = by == Some(SelectedBy::Flag);
        let certificate = chosen.certificate.as_ref();
        let half = |of: fn(&(PathBuf, PathBuf)) -> &Path, names| {
            certificate.map(|it| line(of(&it.value).display(), &it.origin, names))
        };
        Self {
            left_out: context.is_some() && names_broker && !is_asked_for,
            context,
            context_from: by.map(|by| match by {
                SelectedBy::Flag => "--context",
                SelectedBy::Variable => "MCPCTL_CONTEXT",
                SelectedBy::File => "mcpctl context use",
            }),
            broker: Some(broker(&chosen.broker)),
            ca: Some(ca(&chosen.ca)),
            server_name: server_name(chosen),
            token: chosen.token.as_ref().map(token),
            cert: half(|it| &it.0, ["--cert", "MCP_CERT"]),
            key: half(|it| &it.1, ["--key", "MCP_KEY"]),
        }
    }

    fn table(&self) -> String {
        let context = match (&self.context, self.left_out) {
            (None, _) => "-".to_owned(),
            (Some(name), false) => name.to_string(),
            (Some(name), true) => format!("{name}, left out: a broker is named otherwise"),
        };
        let context = ["context".to_owned(), context, self.context_from.unwrap_or("-").to_owned()];
        let rows = [
            ("broker", &self.broker, "-"),
            ("ca", &self.ca, "-"),
            ("server_name", &self.server_name, "the broker's host"),
            ("token", &self.token, "-"),
            ("cert", &self.cert, "-"),
            ("key", &self.key, "-"),
        ];
        let rows = rows.map(|(name, line, none)| match line {
            Some(line) => [name.to_owned(), line.value.clone(), line.from.clone()],
            None => [name.to_owned(), none.to_owned(), "-".to_owned()],
        });
        table::draw(["SETTING", "VALUE", "FROM"], [context].into_iter().chain(rows))
    }
}

/// `names` are those of its option and of its variable.
fn line(value: impl fmt::Display, origin: &Origin, names: [&str; 2]) -> Line {
    let from = match origin {
        Origin::Flag => names[0].to_owned(),
        Origin::Variable => names[1].to_owned(),
        Origin::Context(name) => format!("context {name}"),
        Origin::Default => "default".to_owned(),
    };
    Line { value: value.to_string(), from }
}

fn broker(it: &Setting<Place<String>>) -> Line {
    match &it.value {
        Place::Given(address) => line(address, &it.origin, ["--broker", "MCP_BROKER"]),
        Place::State(dir) => {
            let path = dir.join("address");
            let address = match std::fs::read_to_string(&path) {
                Ok(address) => address.trim().to_owned(),
                Err(_) => "none: no broker runs there".to_owned(),
            };
            let line = line(address, &it.origin, STATE);
            Line { from: format!("{}: {}", line.from, path.display()), ..line }
        }
    }
}

fn ca(it: &Setting<Place<PathBuf>>) -> Line {
    match &it.value {
        Place::Given(path) => line(path.display(), &it.origin, ["--ca", "MCP_CA"]),
        Place::State(dir) => line(dir.join("ca.pem").display(), &it.origin, STATE),
    }
}

/// The certificate of `mcp-broker serve --dev` is for "localhost".
fn server_name(chosen: &Chosen) -> Option<Line> {
    if let Some(name) = &chosen.server_name {
        return Some(line(&name.value, &name.origin, ["--server-name", ""]));
    }
    match (&chosen.broker, &chosen.ca) {
        (Setting { value: Place::State(_), origin }, _)
        | (_, Setting { value: Place::State(_), origin }) => Some(line("localhost", origin, STATE)),
        _ => None,
    }
}

fn token(it: &Setting<Token>) -> Line {
    match &it.value {
        Token::File(path) => line(path.display(), &it.origin, ["--token-file", "MCP_TOKEN_FILE"]),
        Token::Text(_) => line("not shown", &it.origin, ["", "MCP_TOKEN"]),
    }
}
