//! Brokers by name, and what completes command lines.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use crate::command_line::{code, json, stderr};
use crate::support::{BrokerProcess, program, within};

/// `mcpctl` with nothing of this process's environment that says which broker.
fn mcpctl(config: &Path) -> Command {
    let mut command = Command::new(program("mcpctl"));
    for name in ["MCP_STATE", "MCP_BROKER", "MCP_CA", "MCP_TOKEN", "MCP_TOKEN_FILE", "MCP_CERT"] {
        command.env_remove(name);
    }
    command.env_remove("MCP_KEY").env_remove("MCPCTL_CONTEXT");
    command.env("MCPCTL_CONFIG", config).env("HOME", config).env_remove("XDG_STATE_HOME");
    command
}

async fn run(config: &Path, arguments: &[&str]) -> Output {
    run_with(config, arguments, &[]).await
}

async fn run_with(config: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = mcpctl(config);
    command.args(arguments).envs(variables.iter().copied());
    within("mcpctl ends", command.output()).await.unwrap()
}

#[tokio::test]
async fn a_broker_is_reached_by_the_name_of_its_context() {
    let [one, two] = [BrokerProcess::start().await, BrokerProcess::start().await];
    let _workers = [one.worker("a", 1, &["cat"]).await, two.worker("b", 1, &["cat"]).await];
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let agent = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["agents", "ls", "-o", "json"], arguments].concat();
        let output = run_with(&config, &arguments, variables).await;
        assert_eq!(code(&output), Some(0), "{output:?}");
        json(&output)[0]["agent_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&run(&config, &["agents", "ls"]).await), Some(5));

    let (state, ca) = (two.state().to_str().unwrap(), one.state().join("ca.pem"));
    let ca = ca.to_str().unwrap();
    let set = ["context", "set", "one", "--broker", &one.address, "--ca", ca];
    let set = [&set[..], &["--server-name", "localhost", "--use"]].concat();
    assert_eq!(code(&run(&config, &set).await), Some(0));
    assert_eq!(code(&run(&config, &["context", "add", "two", "--state", state]).await), Some(0));
    assert_eq!(agent(&[], &[]).await, "a");
    assert_eq!(agent(&["--context", "two"], &[]).await, "b");
    assert_eq!(agent(&[], &[("MCPCTL_CONTEXT", "two")]).await, "b");
    // What is asked for on the command line counts; else a variable that names a broker.
    let variable = [("MCP_STATE", state)];
    assert_eq!(agent(&[], &variable).await, "b");
    assert_eq!(agent(&["--context", "one"], &variable).await, "a");
    assert_eq!(agent(&["--state", state], &[("MCPCTL_CONTEXT", "one")]).await, "b");

    let shown = json(&run(&config, &["context", "show", "-o", "json"]).await);
    assert_eq!((&shown["context"], &shown["left_out"]), (&"one".into(), &false.into()));
    assert_eq!(shown["broker"]["value"], one.address);
    assert_eq!(shown["broker"]["from"], "context one");
    let output = run_with(&config, &["context", "show", "-o", "json"], &variable).await;
    let shown = json(&output);
    assert_eq!((&shown["context"], &shown["left_out"]), (&"one".into(), &true.into()));
    assert_eq!(shown["broker"]["value"], two.address);
    assert!(shown["broker"]["from"].as_str().unwrap().starts_with("MCP_STATE"), "{shown}");

    assert_eq!(code(&run(&config, &["context", "use", "two"]).await), Some(0));
    assert_eq!(agent(&[], &[]).await, "b");
    assert_eq!(code(&run(&config, &["context", "rm", "two"]).await), Some(0));
    let listed = json(&run(&config, &["context", "ls", "-o", "json"]).await);
    assert_eq!((&listed["current"], listed["contexts"].as_array().unwrap().len()), (&().into(), 1));
    let output = run(&config, &["--context", "two", "agents", "ls"]).await;
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("there are: one"), "{output:?}");
}

#[tokio::test]
async fn a_token_is_for_the_broker_of_its_context_only() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let set = ["context", "set", "prod", "--broker", "broker.example.org", "--ca", "ca.pem"];
    let set = [&set[..], &["--token-file", "ann.token", "--use"]].concat();
    let output = run(&config, &set).await;
    assert_eq!(code(&output), Some(0));
    assert!(stderr(&output).contains("ann.token: No such file"), "{output:?}");
    let token = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["context", "show", "-o", "json"], arguments].concat();
        json(&run_with(&config, &arguments, variables).await)["token"]["from"].clone()
    };
    assert_eq!(token(&[], &[]).await, "context prod");
    assert!(token(&["--broker", "other", "--ca", "ca.pem"], &[]).await.is_null());
    assert!(token(&[], &[("MCP_BROKER", "other"), ("MCP_CA", "ca.pem")]).await.is_null());
    let both = ["--context", "prod", "--broker", "127.0.0.1:7"];
    assert_eq!(token(&both, &[]).await, "context prod");
    assert_eq!(token(&[], &[("MCP_TOKEN", "s3cret")]).await, "MCP_TOKEN");
    let output = run_with(&config, &["context", "show"], &[("MCP_TOKEN", "s3cret")]).await;
    assert!(!String::from_utf8(output.stdout).unwrap().contains("s3cret"));
}

/// What bash would offer for the last of these words.
async fn completed(name: &str, words: &[&str]) -> Option<Vec<String>> {
    let script = r#"source <("$1" completions bash); name=$2; shift 2
        [[ $(complete -p "$name") =~ -F\ ([^ ]+) ]]
        COMP_WORDS=("$name" "$@"); COMP_CWORD=$#
        "${BASH_REMATCH[1]}" "$name" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"]).arg(program(name)).arg(name).args(words);
    let output = match within("bash ends", bash.output()).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    assert_eq!(stderr(&output), "", "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    for (name, words, expected) in [
        ("mcpctl", &["ag"][..], &["agents"][..]),
        ("mcpctl", &["agents", "d"], &["drain"]),
        ("mcpctl", &["agents", "ls", "--la"], &["--label"]),
        ("mcpctl", &["agents", "ls", "--only", "re"], &["ready"]),
        ("mcpctl", &["context", "u"], &["use"]),
        ("mcp-broker", &["ser"], &["serve"]),
        ("mcp-broker", &["config", "sc"], &["schema"]),
    ] {
        // Where there is no bash there is nothing to complete.
        let Some(completed) = completed(name, words).await else { return };
        assert_eq!(completed, expected, "{words:?}");
    }
}

#[tokio::test]
async fn each_shell_gets_a_script_that_names_the_program() {
    for name in ["mcpctl", "mcp-broker"] {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let mut command = Command::new(program(name));
            let output =
                within(shell, command.args(["completions", shell]).output()).await.unwrap();
            let script = String::from_utf8(output.stdout).unwrap();
            assert!(script.contains(name) && script.len() > 1_000, "{name} {shell}");
        }
    }
}
