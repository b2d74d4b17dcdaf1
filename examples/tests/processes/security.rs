//! Who may do what, with the programs: certificates and tokens made, used, renewed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_client::{Client, Endpoint};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command_line::{code, stderr};
use crate::support::{BrokerProcess, program, within};

/// Runs a command in a directory, with the programs in `PATH` and nothing else in its environment.
fn shell(dir: &Path, script: &str, variables: &[(&str, &str)]) -> Command {
    let bin = program("mcp-broker").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).env_clear().env("PATH", path);
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

async fn run(dir: &Path, script: &str, variables: &[(&str, &str)]) -> Output {
    within(script, shell(dir, script, variables).output()).await.unwrap()
}

/// What a broker and its peers need, made by `mcp-broker`.
async fn made(config: &str) -> (BrokerProcess, Arc<TempDir>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let script = "mcp-broker cert ca pki
        mcp-broker cert issue --ca pki --server --name localhost
        mcp-broker cert issue --ca pki --client --name spiffe://example.org/gpu --out .
        mcp-broker token keygen pki";
    let output = run(dir.path(), script, &[]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    fs::write(dir.path().join("broker.toml"), config).unwrap();
    let serve = "exec mcp-broker serve --config broker.toml --listen 127.0.0.1:0";
    let broker = BrokerProcess::serving(shell(dir.path(), serve, &[]), dir.clone()).await;
    (broker, dir)
}

const CONFIG: &str = "tls = { cert_file = 'pki/localhost.pem', key_file = 'pki/localhost.key' }
    [auth]
    client_ca_file = 'pki/ca.pem'
    client_certificates = 'optional'
    token_keys = 'pki/token-keys.json'
    token_leeway_ms = 0
";

async fn issue(dir: &Path, sub: &str, life: &str) -> PathBuf {
    let script = format!(
        "mcp-broker token issue --key pki/token.key --sub {sub} --life {life} --out {sub}.token"
    );
    let output = run(dir, &script, &[]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    dir.join(format!("{sub}.token"))
}

/// Of `mcpctl`, for a broker.
fn variables(broker: &BrokerProcess) -> [(&'static str, String); 2] {
    let port = broker.address.rsplit(':').next().unwrap();
    [("MCP_BROKER", format!("localhost:{port}")), ("MCP_CA", "pki/ca.pem".to_owned())]
}

async fn mcpctl(
    broker: &BrokerProcess,
    dir: &Path,
    arguments: &str,
    more: &[(&str, &str)],
) -> Output {
    let own = variables(broker);
    let mut all: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.extend(more);
    run(dir, &format!("mcpctl {arguments}"), &all).await
}

#[tokio::test]
async fn the_documented_set_up_runs_as_it_is_printed() {
    let documented = include_str!("../../../docs/security.md");
    let (_, rest) = documented.split_once("```sh\n").unwrap();
    let (script, _) = rest.split_once("```\n").unwrap();
    // But for the port, which has to be a free one.
    let script = script.replace("127.0.0.1:7547", "127.0.0.1:0");
    let (set_up, rest) = script.split_once("mcp-broker serve").unwrap();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let output = run(dir.path(), set_up, &[]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let mut lines = rest.lines();
    let serve = format!("exec mcp-broker serve{}", lines.next().unwrap().trim_end_matches('&'));
    let broker = BrokerProcess::serving(shell(dir.path(), &serve, &[]), dir.clone()).await;
    let export = lines.next().unwrap();
    assert_eq!(export, "export MCP_BROKER=localhost:7547 MCP_CA=pki/ca.pem");
    let own = variables(&broker);
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let worker = format!("exec {}", lines.next().unwrap().trim_end_matches('&'));
    let _worker = broker.registered(shell(dir.path(), &worker, &own)).await;
    let output = run(dir.path(), lines.next().unwrap(), &own).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]), "{output:?}");
    let output = run(dir.path(), lines.next().unwrap(), &own).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("gpu-1"), "{output:?}");
    assert_eq!(lines.next(), None);
}

#[tokio::test]
async fn tokens_are_renewed_in_their_files_while_work_goes_on() {
    let (broker, dir) = made(CONFIG).await;
    issue(dir.path(), "gpu", "2s").await;
    let own = variables(&broker);
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let worker =
        "exec mcpctl worker --agent-id w --action upper --token-file gpu.token --exec tr a-z A-Z";
    let _worker = broker.registered(shell(dir.path(), worker, &own)).await;
    let token = issue(dir.path(), "shop", "2s").await;
    let port = broker.address.rsplit(':').next().unwrap();
    let endpoint = Endpoint::new(format!("127.0.0.1:{port}")).server_name("localhost");
    let endpoint = endpoint.ca_file(dir.path().join("pki/ca.pem")).unwrap().token_file(token);
    let client = Client::builder(endpoint).connect().await.unwrap();
    // Longer than two tokens live.
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(6) {
        issue(dir.path(), "gpu", "2s").await;
        issue(dir.path(), "shop", "2s").await;
        let called = client.task("upper").body("a").idempotent(true).call();
        assert_eq!(&within("the call", called).await.unwrap().body[..], b"A");
        calls += 1;
    }
    assert!(calls > 0);
}

#[tokio::test]
async fn credentials_come_from_files_that_are_ones_own_or_from_the_environment() {
    let (broker, dir) = made(CONFIG).await;
    let dir = dir.path();
    let token = issue(dir, "ann", "1h").await;
    let list = "tasks ls";
    let output = mcpctl(&broker, dir, list, &[]).await;
    assert_eq!(code(&output), Some(5), "{output:?}");
    assert!(stderr(&output).contains("--token-file"), "{}", stderr(&output));
    let text = fs::read_to_string(&token).unwrap();
    for (arguments, more) in [
        ("tasks ls --token-file ann.token", &[][..]),
        ("tasks ls --cert gpu.pem --key gpu.key", &[]),
        (list, &[("MCP_TOKEN_FILE", "ann.token")]),
        (list, &[("MCP_TOKEN", text.trim())]),
        (list, &[("MCP_CERT", "gpu.pem"), ("MCP_KEY", "gpu.key")]),
    ] {
        let files = arguments.replace("gpu.", "example.org-gpu.");
        let more: Vec<_> = more
            .iter()
            .map(|(name, value)| (*name, value.replacen("gpu.", "example.org-gpu.", 1)))
            .collect();
        let more: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = mcpctl(&broker, dir, &files, &more).await;
        assert_eq!(code(&output), Some(0), "{arguments}: {output:?}");
    }
    for name in ["ann.token", "example.org-gpu.key", "pki/token.key", "pki/ca.key"] {
        let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    for (script, file) in [
        ("mcpctl tasks ls --token-file ann.token", "ann.token"),
        (
            "mcpctl tasks ls --cert example.org-gpu.pem --key example.org-gpu.key",
            "example.org-gpu.key",
        ),
        ("mcp-broker token issue --key pki/token.key --sub x", "pki/token.key"),
        ("mcp-broker token inspect ann.token", "ann.token"),
        ("mcp-broker cert issue --ca pki --client --name x", "pki/ca.key"),
    ] {
        let own = variables(&broker);
        let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = run(dir, script, &own).await;
        assert_ne!(code(&output), Some(0), "{script}");
        assert!(
            stderr(&output).contains(&format!("run `chmod 600 {file}`")),
            "{}",
            stderr(&output)
        );
    }
    let output = run(dir, "mcp-broker cert ca pki", &[]).await;
    assert!(stderr(&output).contains("is there already"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_workers_token_is_not_its_programs_business() {
    let (broker, dir) = made(CONFIG).await;
    let token = fs::read_to_string(issue(dir.path(), "gpu", "1h").await).unwrap();
    let own = variables(&broker);
    let mut own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    own.push(("MCP_TOKEN", token.trim()));
    let worker = "exec mcpctl worker --agent-id w --action env --exec env";
    let _worker = broker.registered(shell(dir.path(), worker, &own)).await;
    let output = mcpctl(&broker, dir.path(), "call env", &[("MCP_TOKEN", token.trim())]).await;
    let seen = String::from_utf8(output.stdout).unwrap();
    assert!(seen.contains("MCP_TASK_ID=") && !seen.contains("MCP_TOKEN="), "{seen}");
}

#[tokio::test]
async fn the_doctor_finds_what_is_missing_of_a_proof() {
    let (broker, dir) = made(CONFIG).await;
    issue(dir.path(), "shop", "1h").await;
    let told = async |arguments: &str| {
        let output = mcpctl(&broker, dir.path(), &format!("{arguments} doctor"), &[]).await;
        (code(&output), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = told("").await;
    assert_eq!(code, Some(5));
    assert!(text.contains("failed   authentication  UNAUTHENTICATED"), "{text}");
    assert!(text.contains("to do: prove who you are") && text.contains("skipped  clock"), "{text}");
    fs::write(dir.path().join("old.token"), "a.b.c").unwrap();
    fs::set_permissions(dir.path().join("old.token"), Permissions::from_mode(0o600)).unwrap();
    let (code, text) = told("--token-file old.token").await;
    assert_eq!(code, Some(5));
    assert!(text.contains("failed   authentication"), "{text}");
    for proof in ["--token-file shop.token", "--cert example.org-gpu.pem --key example.org-gpu.key"]
    {
        let (code, text) = told(proof).await;
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("ok       clock           within the validity"), "{text}");
    }
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_with_a_certificate() {
    let config = "tls = { cert_file = 'pki/localhost.pem', key_file = 'pki/localhost.key' }
        auth = { client_ca_file = 'pki/ca.pem', client_certificates = 'required' }
    ";
    let (broker, dir) = made(config).await;
    let script = "mcp-broker cert ca other
        mcp-broker cert issue --ca other --client --name stranger --out .";
    assert_eq!(code(&run(dir.path(), script, &[]).await), Some(0));
    for (proof, seen) in [
        ("", "asks for a certificate, and none was given"),
        ("--cert stranger.pem --key stranger.key", "does not know the authority"),
    ] {
        let output = mcpctl(&broker, dir.path(), &format!("{proof} doctor"), &[]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("failed   authentication  the broker"), "{text}");
        assert!(text.contains(seen) && text.contains("to do: give a certificate"), "{text}");
    }
}
