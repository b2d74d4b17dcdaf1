//! What is in `contrib/` against a broker: alert rules, the dashboard, configurations.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mcp_broker::auth::{Purpose, SigningKey, create_private, issue_private};
use mcp_broker::{Broker, Layers};
use tokio::io::AsyncWriteExt;

use crate::admin::get;
use crate::support::{RawPeer, broker, result, send};

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(path)
}

/// The metrics of a broker that has everything there is, and has done a task.
async fn metrics() -> String {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_owned();
    let keys = path.join("token-keys.json");
    std::fs::write(&keys, SigningKey::generate().unwrap().public_json()).unwrap();
    let broker = broker(move |config| {
        config.auth.token_keys = Some(keys);
        config.auth.allow_anonymous = true;
        config.admin = Some("0".parse().unwrap());
        config.state_dir = Some(path.clone());
        config.audit.file = Some(path.join("audit.log"));
        // Nobody listens there: spans are lost, and counted.
        config.telemetry.otlp_endpoint = Some("http://127.0.0.1:9".to_owned());
    })
    .await;
    let mut worker = RawPeer::worker(&broker, "w", "work", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t", "work"), "").await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "").await;
    client.receive_deliver().await;
    let answer = get(broker.admin_addr().unwrap(), "/metrics").await;
    assert_eq!(answer.status, 200);
    broker.shutdown().await;
    answer.body
}

/// The names of all series, those included that only come when something happens.
fn series(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(family, kind)| {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{family}{suffix}"))
    });
    names.collect()
}

/// What looks like the name of one of our metrics.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(|it| !is_name(it));
    let ours = words.filter(|it| it.starts_with("mcp_") || it.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

#[tokio::test]
async fn what_rules_and_dashboard_ask_for_is_told() {
    let told = series(&metrics().await);
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/dashboard.json"] {
        let text = std::fs::read_to_string(contrib(file)).unwrap();
        let asked = named(&text);
        assert!(asked.len() > 5, "{file}: {asked:?}");
        for name in asked {
            // In words, a histogram is named without a suffix.
            let is_told = told.contains(&name) || told.contains(&format!("{name}_bucket"));
            assert!(is_told, "{file}: there is no {name}");
        }
    }
    let dashboard = std::fs::read_to_string(contrib("grafana/dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

#[tokio::test]
async fn the_process_is_told_by_the_usual_names() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let metrics = metrics().await;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(
        value("process_open_fds") > 2.0 && value("process_max_fds") > value("process_open_fds")
    );
    assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    assert!(value("process_start_time_seconds") > 1.6e9);
}

/// Those of the image and of Kubernetes, with places of this test's.
#[tokio::test]
async fn a_broker_starts_with_the_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let authority = create_private(day).unwrap();
    let names = ["mcp-broker.mcp.svc".to_owned()];
    let issued = issue_private(&authority.key_pem, Purpose::Server, &names, day).unwrap();
    let keys = SigningKey::generate().unwrap().public_json();
    let image = contrib("docker/broker.toml");
    let kubernetes = contrib("kubernetes/broker.toml");
    let policy = contrib("kubernetes/policy.toml").to_str().unwrap().to_owned();
    for (path, of_kubernetes) in [
        (image, vec![]),
        (
            kubernetes,
            vec![
                ("auth.client_ca_file", file("ca.crt", &authority.cert_pem)),
                ("auth.token_keys", file("keys.json", &keys)),
                ("auth.policy_file", policy),
            ],
        ),
    ] {
        let mut layers = Layers::new().file(&path);
        for (key, value) in [
            ("listen", "127.0.0.1:0".to_owned()),
            ("admin", "127.0.0.1:0".to_owned()),
            ("state_dir", dir.path().join("state").to_str().unwrap().to_owned()),
            ("tls.cert_file", file("tls.crt", &issued.cert_pem)),
            ("tls.key_file", file("tls.key", &issued.key_pem)),
        ] {
            layers = layers.flag("this test", key, value);
        }
        for (key, value) in of_kubernetes {
            layers = layers.flag("this test", key, value);
        }
        let broker = Broker::builder().layers(layers).start().await.unwrap();
        assert_eq!(get(broker.admin_addr().unwrap(), "/readyz").await.status, 200);
        broker.shutdown().await;
    }
}

/// Prometheus' own opinion, where it is installed: `.ci/run` sees to that.
#[tokio::test]
async fn promtool_has_nothing_against_the_metrics() {
    let mut promtool = tokio::process::Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let spawned = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = spawned else {
        return eprintln!("NOT CHECKED: there is no promtool");
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(as_text_format(&metrics().await).as_bytes()).await.unwrap();
    drop(stdin);
    let checked = promtool.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_rules_do_what_they_say() {
    let test = ["test", "rules", "alerts_test.yml"];
    let tested = Command::new("promtool").args(test).current_dir(contrib("prometheus")).output();
    let Ok(tested) = tested else {
        return eprintln!("NOT TESTED: there is no promtool");
    };
    assert!(tested.status.success(), "{tested:?}");
}

/// What promtool reads: the format before OpenMetrics, which names a counter with its suffix.
fn as_text_format(metrics: &str) -> String {
    let mut text = String::new();
    for line in metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let is_counter = |name: &str| metrics.contains(&format!("# TYPE {name} counter\n"));
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), ..) => continue,
            (Some("#"), Some(what), Some(name), Some(rest)) if is_counter(name) => {
                text.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
