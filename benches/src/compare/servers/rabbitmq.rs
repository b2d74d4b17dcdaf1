//! rabbitmq-server: a private node, which knows nothing of one that the system may run.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::wait_for;
use crate::peers::Target;
use crate::processes::Process;

pub(super) const HOW_TO_GET: &str = "rabbitmq-server is not found: `apt install rabbitmq-server` has \
                                     it; or give --rabbitmq-server PATH or RABBITMQ_SERVER";

/// Where packages have the script itself. What they put on the `PATH` changes to a user of its own,
/// who can't write where the others do.
const PACKAGED: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

const PORT_FILE: &str = "port";

const NODE: &str = "bench@localhost";

/// No distribution: nobody listens for other nodes, and what the node starts later starts no epmd. The
/// port is none that is used, but 0 would not do.
const NO_DISTRIBUTION: &str = "-start_epmd false -erl_epmd_port 1 -dist_listen false";

/// The script, among what was given, or packaged, or is on the `PATH`.
pub(super) fn find(given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("rabbitmq-server"));
    let mut candidates = std::iter::once(PathBuf::from(PACKAGED)).chain(on_path);
    candidates.find(|it| version(it).is_some()).unwrap_or_else(|| PACKAGED.into())
}

/// What the server's own plugin is called, `rabbit-3.10.8`. The script itself tells no version: it
/// takes no arguments.
pub(super) fn version(program: &Path) -> Option<String> {
    let program = program.canonicalize().ok()?;
    let plugins = program.parent()?.parent()?.join("plugins");
    let mut names = fs::read_dir(plugins).ok()?.flatten().map(|plugin| plugin.file_name());
    names.find_map(|name| {
        let version = name.to_str()?.strip_prefix("rabbit-")?;
        Some(version.strip_suffix(".ez").unwrap_or(version).to_owned())
    })
}

/// With its files in `dir`, all else as by default.
pub(super) fn start(program: &Path, dir: &Path) -> Result<(Process, Target)> {
    // It runs in `dir`.
    let (program, dir) = (&program.canonicalize()?, &dir.canonicalize()?);
    let config = "listeners.tcp.1 = 127.0.0.1:0\nlog.console = false\nlog.file.level = warning\n";
    fs::write(dir.join("rabbitmq.conf"), config)?;
    let mut server = Process::start(&mut command(program, dir))?;
    let address = wait_for(&mut server, || address(dir))?;
    Ok((server, Target::Rabbitmq { address }))
}

fn command(program: &Path, dir: &Path) -> Command {
    // Ctrl-C ends it, as it does the others. A node with its name already needs no epmd to get it. Once
    // it has started it writes which port it listens at.
    let erlang = format!(
        "+Bd -sname {NODE} -eval \
         file:write_file(\"{PORT_FILE}\",integer_to_list(ranch:get_port({{acceptor,{{127,0,0,1}},0}})))"
    );
    let mut command = Command::new(program);
    command
        // Nothing of a node that the system may run, and none of its plugins.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        // Where its cookie is.
        .env("HOME", dir)
        .env("RABBITMQ_NODENAME", NODE)
        .env("RABBITMQ_MNESIA_BASE", dir)
        .env("RABBITMQ_LOG_BASE", dir)
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("no-environment"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("no-plugins"))
        // The script becomes the server, whose shell ends it with its stdin.
        .env("RABBITMQ_ALLOW_INPUT", "1")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang)
        .env("ERL_FLAGS", NO_DISTRIBUTION)
        .current_dir(dir)
        .stderr(Stdio::null());
    command
}

/// By the port that it has written.
fn address(dir: &Path) -> Option<SocketAddr> {
    let port = fs::read_to_string(dir.join(PORT_FILE)).ok()?.parse().ok()?;
    Some((Ipv4Addr::LOCALHOST, port).into())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_plugins_beside_the_script_tell_the_version() {
        let dir = TempDir::new().unwrap();
        let (bin, plugins) = (dir.path().join("sbin"), dir.path().join("plugins"));
        fs::create_dir(&bin).unwrap();
        let script = bin.join("rabbitmq-server");
        assert_eq!(version(&script), None);
        fs::write(&script, "").unwrap();
        assert_eq!(version(&script), None);
        fs::create_dir(&plugins).unwrap();
        for name in ["rabbit_common-3.10.8", "rabbitmq_mqtt-3.10.8"] {
            fs::create_dir(plugins.join(name)).unwrap();
        }
        assert_eq!(version(&script), None);
        fs::create_dir(plugins.join("rabbit-3.10.8")).unwrap();
        assert_eq!(version(&script).as_deref(), Some("3.10.8"));
    }

    #[test]
    fn the_port_file_tells_the_address() {
        let dir = TempDir::new().unwrap();
        assert_eq!(address(dir.path()), None);
        fs::write(dir.path().join(PORT_FILE), "").unwrap();
        assert_eq!(address(dir.path()), None);
        fs::write(dir.path().join(PORT_FILE), "4711").unwrap();
        assert_eq!(address(dir.path()), Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
    }

    #[test]
    fn what_is_given_is_not_replaced() {
        let given = Path::new("/nowhere/rabbitmq-server");
        assert_eq!(find(Some(given)), given);
        assert_eq!(version(given), None);
    }
}
