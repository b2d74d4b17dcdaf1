//! `mcpctl context`: brokers by name, and which of them counts.

mod show;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::contexts::{ContextName, Contexts};
use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::settings::Settings;
use crate::{report, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl context set prod --broker broker.example.org:7447 --ca prod-ca.pem --token-file ann.token
  mcpctl context set here --state D
  mcpctl context use prod
  mcpctl agents ls                        # of prod
  mcpctl --context here agents ls
  mcpctl context show                     # what counts, and why";

const LS_EXAMPLES: &str = "\
Examples:
  mcpctl context ls
  mcpctl context ls -o json | jq -r '.contexts[].name'";

const SET_EXAMPLES: &str = "\
Examples:
  mcpctl context set prod --broker broker.example.org:7447 --ca prod-ca.pem --token-file ann.token
  mcpctl context set mtls --broker 10.0.0.7 --server-name broker.internal --ca ca.pem --cert me.pem --key me.key
  mcpctl context set here --state D --use";

const USE_EXAMPLES: &str = "\
Examples:
  mcpctl context use prod
  mcpctl context use --none               # as if there were no contexts";

const RM_EXAMPLES: &str = "\
Examples:
  mcpctl context rm staging";

/// Keep brokers by name, and choose among them
///
/// They are in a TOML file, MCPCTL_CONFIG or mcpctl/config.toml in XDG_CONFIG_HOME (~/.config), with
/// names of files and no secrets.
///
/// Of each setting, what comes first counts: options; a context that --context names; environment
/// variables; the context that MCPCTL_CONTEXT names, or else the current one; the state directory of
/// `mcp-broker serve --dev`. Where options or variables name a broker (--broker, --state, MCP_BROKER,
/// MCP_STATE), the contexts of the last two places are left out whole: who you are at one broker is no
/// other broker's business.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(Ls),
    Show(show::Show),
    Set(Set),
    Use(Use),
    Rm(Rm),
}

/// List the contexts
///
/// The one with a * is the current one. With `-o json`, {file, current, contexts}, with contexts an array
/// of {name, state, broker, ca, server_name, token_file, cert, key}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = LS_EXAMPLES, after_long_help = format!("{LS_EXAMPLES}\n\n{}", exit::HELP))]
struct Ls {}

/// Make a context, or make it anew
///
/// It is what the options say: --broker with --ca, or --state; --server-name; --token-file, or --cert with
/// --key. What an earlier one of that name said besides is gone. Paths are kept as absolute ones.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, visible_alias = "add", after_help = SET_EXAMPLES, after_long_help = format!("{SET_EXAMPLES}\n\n{}", exit::HELP))]
struct Set {
    /// Its name: 1 to 64 of [A-Za-z0-9._-]
    #[arg(value_name = "NAME")]
    name: ContextName,

    /// Make it the current one, too
    #[arg(long = "use")]
    is_used: bool,
}

/// Choose the current context, which counts when none is said
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = USE_EXAMPLES, after_long_help = format!("{USE_EXAMPLES}\n\n{}", exit::HELP))]
struct Use {
    /// Which
    #[arg(value_name = "NAME", required_unless_present = "none")]
    name: Option<ContextName>,

    /// None
    #[arg(long, conflicts_with = "name")]
    none: bool,
}

/// Forget contexts
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = RM_EXAMPLES, after_long_help = format!("{RM_EXAMPLES}\n\n{}", exit::HELP))]
struct Rm {
    /// Which
    #[arg(value_name = "NAME", required = true)]
    names: Vec<ContextName>,
}

impl ContextArgs {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self.command {
            Command::Ls(_) => ls(&Contexts::load()?, global.output)?,
            Command::Show(show) => show.run(global)?,
            Command::Set(set) => set.run(global)?,
            Command::Use(chosen) => chosen.run()?,
            Command::Rm(rm) => rm.run()?,
        }
        Ok(Exit::Ok)
    }
}

impl Set {
    fn run(self, global: &Global) -> Result<(), Failure> {
        if global.context.is_some() {
            return Err(Failure::usage("--context: say the name of what is set after `set`"));
        }
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let settings = global.settings.clone().map_paths(absolute);
        let mut contexts = Contexts::load()?;
        for problem in problems(&settings) {
            tell(format_args!("note: {problem}"))?;
        }
        let is_new = contexts.set(self.name.clone(), settings)?;
        if self.is_used {
            contexts.choose(Some(&self.name))?;
        }
        contexts.save()?;
        let done = if is_new { "made" } else { "made anew" };
        let name = &self.name;
        tell(format_args!("context {name}: {done}, in {}", contexts.path().display()))?;
        if contexts.current() != Some(name) {
            tell(format_args!(
                "to use it: mcpctl --context {name} COMMAND, or for all: mcpctl context use {name}"
            ))?;
        }
        Ok(())
    }
}

impl Use {
    fn run(self) -> Result<(), Failure> {
        let mut contexts = Contexts::load()?;
        contexts.choose(self.name.as_ref())?;
        contexts.save()?;
        match &self.name {
            Some(name) => tell(format_args!("context {name} is the current one")),
            None => tell(format_args!("no context is the current one")),
        }
    }
}

impl Rm {
    fn run(self) -> Result<(), Failure> {
        let mut contexts = Contexts::load()?;
        for name in &self.names {
            if contexts.remove(name)? {
                tell(format_args!(
                    "{name} was the current one; choose another: mcpctl context use"
                ))?;
            }
        }
        contexts.save()
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    file: &'a Path,
    current: Option<&'a ContextName>,
    contexts: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a ContextName,
    #[serde(flatten)]
    settings: &'a Settings,
}

fn ls(contexts: &Contexts, output: Output) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match output {
        Output::Json => {
            let rows = contexts.iter().map(|(name, settings)| Row { name, settings }).collect();
            let (file, current) = (contexts.path(), contexts.current());
            let listed = Listed { file, current, contexts: rows };
            writeln!(stdout, "{}", report::pretty(&listed)?)?;
        }
        Output::Table if contexts.iter().next().is_none() => {
            let file = contexts.path().display();
            tell(format_args!(
                "no contexts in {file}; make one with `mcpctl context set NAME --broker HOST:PORT \
                 --ca FILE`"
            ))?;
        }
        Output::Table => {
            let row = |(name, settings): (&ContextName, &Settings)| {
                let mark = if contexts.current() == Some(name) { "* " } else { "  " };
                let path = |it: &Option<PathBuf>| it.as_ref().map(|it| it.display().to_string());
                let state = path(&settings.state).map(|it| format!("of {it}"));
                let broker = settings.broker.clone().or_else(|| state.clone());
                let ca = path(&settings.ca).or(state);
                let who = path(&settings.token_file).or_else(|| path(&settings.cert));
                let or_none = |it: Option<String>| it.unwrap_or_else(|| "-".to_owned());
                [format!("{mark}{name}"), or_none(broker), or_none(ca), or_none(who)]
            };
            let header = ["  NAME", "BROKER", "CA", "CREDENTIALS"];
            writeln!(stdout, "{}", table::draw(header, contexts.iter().map(row)))?;
        }
    }
    Ok(stdout.flush()?)
}

/// What will be wrong with the files of a context when it is used.
fn problems(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    for path in [&settings.ca, &settings.cert, &settings.state].into_iter().flatten() {
        if let Err(error) = path.metadata() {
            problems.push(format!("{}: {error}", path.display()));
        }
    }
    for path in [&settings.token_file, &settings.key].into_iter().flatten() {
        if let Err(problem) = mcp_proto::secret::read(path) {
            problems.push(format!("{}: {problem}", path.display()));
        }
    }
    problems
}

/// Says what was done, where it is in nobody's way.
fn tell(what: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    Ok(writeln!(io::stderr(), "{what}")?)
}
