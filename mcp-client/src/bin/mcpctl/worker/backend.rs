//! What does the work: the backend that the command line chooses.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use mcp_client::backend::InvalidBackend;
use mcp_client::backend::exec::Exec;
use mcp_client::backend::http::Http;
use mcp_client::backend::kserve::KServe;
use mcp_client::backend::openai::OpenAi;
use mcp_client::worker::HandlerFuture;
use mcp_client::{Handler, HandlerError, HandlerReply, Job};

use crate::exit::Failure;

const API_KEY_VARIABLE: &str = "OPENAI_API_KEY";

/// Keys have some hundred bytes, tokens that stand for an identity some thousand.
const MAX_API_KEY_BYTES: u64 = 16 * 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Backend")]
pub(super) struct BackendArgs {
    #[command(flatten)]
    choice: Choice,

    /// The model; with --openai the task's or the server's when not given
    #[arg(long, value_name = "NAME", conflicts_with_all = ["exec", "http", "echo"])]
    model: Option<String>,

    /// File with the key for --openai; else the environment variable OPENAI_API_KEY, if it is set
    #[arg(long, value_name = "FILE", conflicts_with_all = ["exec", "http", "kserve", "echo"])]
    api_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(id = "backend", required = true, multiple = false)]
struct Choice {
    /// Run a program for each task: the command and its arguments, everything that follows
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_names = ["CMD", "ARGS"])]
    exec: Option<Vec<OsString>>,

    /// Post each task to this URL; the answer's body is the result
    #[arg(long, value_name = "URL")]
    http: Option<String>,

    /// Have a language model answer: the URL of an OpenAI-compatible API, such as
    /// http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    openai: Option<String>,

    /// Have a model infer: the URL of a server of the KServe v2 protocol, such as Triton
    #[arg(long, value_name = "URL", requires = "model")]
    kserve: Option<String>,

    /// Answer each task with its own input, for trying things out
    #[arg(long)]
    echo: bool,
}

/// The backend that was chosen.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    Exec(Exec),
    Http(Http),
    OpenAi(OpenAi),
    KServe(KServe),
    Echo,
}

impl Handler for Backend {
    fn call(&self, job: Job) -> HandlerFuture {
        match self {
            Backend::Exec(exec) => exec.call(job),
            Backend::Http(http) => http.call(job),
            Backend::OpenAi(openai) => openai.call(job),
            Backend::KServe(kserve) => kserve.call(job),
            Backend::Echo => Box::pin(echo(job)),
        }
    }
}

async fn echo(job: Job) -> Result<HandlerReply, HandlerError> {
    let mut input = job.input();
    let mut last = job.body.clone();
    while let Some(part) = input.next().await {
        job.emit(std::mem::replace(&mut last, part?)).await?;
    }
    Ok(HandlerReply::new(last).content_type(job.task.content_type))
}

impl BackendArgs {
    pub(super) fn backend(&self) -> Result<Backend, Failure> {
        let Choice { exec, http, openai, kserve, echo: _ } = &self.choice;
        let invalid = |option: &'static str| {
            move |error: InvalidBackend| Failure::usage(format_args!("{option}: {error}"))
        };
        if let Some(command) = exec {
            return Ok(Backend::Exec(program(command)?));
        }
        if let Some(url) = http {
            return Ok(Backend::Http(Http::new(url).map_err(invalid("--http"))?));
        }
        if let Some(url) = openai {
            let mut openai = OpenAi::new(url).map_err(invalid("--openai"))?;
            if let Some(model) = &self.model {
                openai = openai.model(model);
            }
            if let Some(key) = api_key(self.api_key_file.as_deref())? {
                openai = openai.api_key(&key).map_err(invalid("--openai"))?;
            }
            return Ok(Backend::OpenAi(openai));
        }
        if let Some(url) = kserve {
            let model = self.model.as_deref().unwrap_or_default();
            return Ok(Backend::KServe(KServe::new(url, model).map_err(invalid("--kserve"))?));
        }
        Ok(Backend::Echo)
    }

    #[cfg(test)]
    pub(super) fn exec(&self) -> &[OsString] {
        self.choice.exec.as_deref().unwrap_or_default()
    }
}

fn program(command: &[OsString]) -> Result<Exec, Failure> {
    let Some((program, args)) = command.split_first() else {
        return Err(Failure::usage("--exec needs a program"));
    };
    if !is_found(program) {
        return Err(Failure::usage(format_args!(
            "there is no program {}: check its name and PATH",
            program.display()
        )));
    }
    Ok(Exec::new(program, args))
}

/// Whether the program can be there: a path that is a file, or a name in PATH.
fn is_found(program: &OsStr) -> bool {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.is_file();
    }
    let directories = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&directories).any(|directory| directory.join(path).is_file())
}

/// Not an option of its own: others could see it in the list of processes.
fn api_key(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let key = match file {
        Some(path) => read(path).map_err(|error| {
            Failure::usage(format_args!("cannot read the API key from {}: {error}", path.display()))
        })?,
        None => match env::var(API_KEY_VARIABLE) {
            Ok(key) => key,
            Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                return Err(Failure::usage(format_args!("{API_KEY_VARIABLE} is not a text")));
            }
        },
    };
    Ok(Some(key.trim().to_owned()).filter(|key| !key.is_empty()))
}

fn read(path: &Path) -> io::Result<String> {
    let mut key = String::new();
    File::open(path)?.take(MAX_API_KEY_BYTES + 1).read_to_string(&mut key)?;
    match key.trim().len() as u64 {
        0 => Err(io::Error::other("it is empty")),
        MAX_API_KEY_BYTES.. => Err(io::Error::other("it is too long for a key")),
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_up_as_the_shell_does() {
        assert!(is_found("sh".as_ref()));
        assert!(is_found("/bin/sh".as_ref()));
        assert!(!is_found("no-such-program-here".as_ref()));
        assert!(!is_found("./no-such-program-here".as_ref()));
        assert!(!is_found("/bin".as_ref()));
    }

    #[test]
    fn a_key_is_read_from_its_file_and_not_shown_when_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(api_key(Some(&path)).is_err());
        std::fs::write(&path, "\n").unwrap();
        assert!(api_key(Some(&path)).unwrap_err().message.contains("it is empty"));
        std::fs::write(&path, "sk-secret\n").unwrap();
        assert_eq!(api_key(Some(&path)).unwrap().as_deref(), Some("sk-secret"));
        std::fs::write(&path, "secret ".repeat(10_000)).unwrap();
        let failure = api_key(Some(&path)).unwrap_err();
        assert!(failure.message.contains("too long") && !failure.message.contains("secret"));
    }
}
