//! redis-server, with and without a file.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::wait_for;
use crate::peers::Target;
use crate::processes::Process;

/// How often a port is tried that somebody else may take first.
const PORT_ATTEMPTS: usize = 5;

pub(super) const HOW_TO_GET: &str = "redis-server is not found: `apt-get install redis-server` has \
                                     it; or give --redis-server PATH or REDIS_SERVER";

pub(super) fn start(program: &Path, dir: &Path) -> Result<(Process, Target)> {
    let (server, address) = run(program, dir, &["--appendonly", "no"])?;
    Ok((server, Target::Redis { address }))
}

/// With a file in `dir` that all commands are appended to, synced as `appendfsync` says.
pub(super) fn start_streams(
    program: &Path,
    dir: &Path,
    appendfsync: &str,
) -> Result<(Process, Target)> {
    let arguments = ["--appendonly", "yes", "--appendfsync", appendfsync];
    let (server, address) = run(program, dir, &arguments)?;
    Ok((server, Target::RedisStreams { address }))
}

fn run(program: &Path, dir: &Path, arguments: &[&str]) -> Result<(Process, SocketAddr)> {
    for _ in 0..PORT_ATTEMPTS {
        // It can't choose one itself.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--loglevel", "warning"])
            .args(["--dir", &dir.display().to_string()])
            .args(["--logfile", &dir.join("redis.log").display().to_string()])
            .args(arguments);
        let mut server = Process::start(&mut command)?;
        let connects = || TcpStream::connect(address).ok();
        if wait_for(&mut server, connects).is_ok() && server.is_running() {
            return Ok((server, address));
        }
    }
    bail!("redis-server does not start")
}
