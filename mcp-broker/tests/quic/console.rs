//! The console's HTTP API: it does what `mcp.admin.*` does, for those who may have it done.

use std::net::SocketAddr;
use std::path::PathBuf;

use mcp_broker::StartError;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::admin::{Answer, admin_broker, ask, get};
use crate::support::{Flow, RawPeer, broker, result, send, within};

pub(crate) const TOKEN: &str = "a-token-of-some-length";

/// As many as look on at once.
const LISTENERS: usize = 16;

pub(crate) fn token_file(text: &str, mode: u32) -> (TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (dir, path)
}

async fn request(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    ask(address, text.as_bytes()).await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    let headers = ["Host: localhost", "Content-Type: application/json"];
    request(address, &format!("POST /api/v1/{path}"), &headers, &body.to_string()).await
}

pub(crate) async fn look(address: SocketAddr, path: &str) -> Value {
    let answer = get(address, &format!("/api/v1/{path}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn what_operators_ask_is_answered_and_what_they_say_is_done() {
    let (broker, address) = admin_broker().await;
    let mut worker = RawPeer::worker(&broker, "w+1", "up.per/v1:x", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t", "up.per/v1:x"), "body").await;
    let (route, _) = worker.receive_route().await;
    assert_eq!(look(address, "agents/list?text=W%2B1&limit=5").await["agents"][0]["in_flight"], 1);
    assert_eq!(look(address, "agents/show?agent=w%2B1").await["holds"][0]["task_id"], "t");
    assert_eq!(look(address, "actions/show?action=up.per%2Fv1%3Ax").await["running"], 1);
    assert_eq!(look(address, "tasks/show?task_id=t").await["status"], "running");
    assert_eq!(look(address, "overview").await["tasks"]["running"], 1);

    let why = json!({"agent": "w+1", "why": "disk"});
    let drained = post(address, "agents/drain", &why).await;
    assert_eq!(drained.status, 200, "{}", drained.body);
    let drained: Value = serde_json::from_str(&drained.body).unwrap();
    assert_eq!((&drained["held"], &drained["drained"]["by"]), (&json!(1), &json!("console")));
    worker.send(result(&route), "").await;
    client.receive_deliver().await;
    client.send(send("t-2", "up.per/v1:x"), "").await;
    client.expect_alive().await;
    assert_eq!(look(address, "tasks/show?task_id=t-2").await["status"], "queued");
    assert_eq!(post(address, "agents/resume", &json!({"agent": "w+1"})).await.status, 200);
    worker.receive_route().await;
    let cancelled = post(address, "tasks/cancel", &json!({"task_id": "t-2"})).await;
    assert!(cancelled.body.contains("\"cancelled\":true"), "{}", cancelled.body);
}

#[tokio::test]
async fn what_can_not_be_done_is_refused_with_the_reason() {
    let (_broker, address) = admin_broker().await;
    let error = |answer: Answer| {
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let (status, message) = error(get(address, "/api/v1/agents/nonsense").await);
    assert!(status == 404 && message.contains("agents/drain"), "{status} {message}");
    let (status, message) = error(get(address, "/api/v1/agents/drain?agent=w").await);
    assert!(status == 405 && message.contains("POST"), "{status} {message}");
    for path in
        ["agents/list?limit=0", "agents/list?limit=x", "agents/list?sate=lost", "tasks/show"]
    {
        let (status, message) = error(get(address, &format!("/api/v1/{path}")).await);
        assert!(status == 400 && !message.is_empty(), "{path}: {status} {message}");
    }
    for path in ["agents/show?agent=w", "actions/show?action=a", "tasks/show?task_id=t"] {
        let answer = get(address, &format!("/api/v1/{path}")).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, "null"), "{path}");
    }
    let large = json!({"agent": "x".repeat(70_000)});
    let (status, message) = error(post(address, "agents/drain", &large).await);
    assert!(status == 400 && message.contains("read"), "{status} {message}");
    let headers = ["Host: localhost", "Content-Type: application/json"];
    let answer = request(address, "POST /api/v1/agents/drain", &headers, "{").await;
    assert_eq!(error(answer).0, 400);
    assert_eq!(request(address, "DELETE /api/v1/agents/drain", &headers, "").await.status, 405);
}

#[tokio::test]
async fn pages_of_other_sites_do_and_see_nothing() {
    let (broker, address) = admin_broker().await;
    let _worker = RawPeer::worker(&broker, "w", "a", 1).await;
    let body = json!({"agent": "w"}).to_string();
    let (json, host) = ("Content-Type: application/json", "Host: localhost");
    for (headers, status) in [
        (vec![host], 415),
        (vec![host, "Content-Type: text/plain"], 415),
        (vec![host, "Content-Type: application/x-www-form-urlencoded"], 415),
        (vec!["Host: evil.example", json], 403),
        (vec![json], 403),
        (vec![host, json, "Origin: http://evil.example"], 403),
        (vec![host, json, "Origin: null"], 403),
        (vec![host, json, "Sec-Fetch-Site: cross-site"], 403),
        (vec![host, json, "Sec-Fetch-Site: same-site"], 403),
    ] {
        let answer = request(address, "POST /api/v1/agents/drain", &headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert!(!answer.head.contains("access-control"), "{}", answer.head);
    }
    let preflight = request(address, "OPTIONS /api/v1/agents/drain", &[host], "").await;
    assert!(preflight.status == 405 && !preflight.head.contains("access-control"));
    assert!(look(address, "agents/show?agent=w").await["drained"].is_null());
    for path in ["/", "/console/main.js", "/metrics", "/api/v1/overview", "/api/v1/live"] {
        let answer = request(address, &format!("GET {path}"), &["Host: evil.example"], "").await;
        assert_eq!(answer.status, 403, "{path}");
    }
    let image = ["Host: localhost", "Sec-Fetch-Site: cross-site"];
    assert_eq!(request(address, "GET /api/v1/live", &image, "").await.status, 403);
    // Probes ask by any name.
    assert_eq!(request(address, "GET /livez", &["Host: evil.example"], "").await.status, 200);
}

#[tokio::test]
async fn every_answer_tells_browsers_to_run_and_frame_nothing_else() {
    let (_broker, address) = admin_broker().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/console/main.js", "text/javascript"),
        ("/console/base.css", "text/css"),
        ("/api/v1/overview", "application/json"),
        ("/nothing", "text/plain"),
    ] {
        let answer = get(address, path).await;
        for expected in [
            format!("content-type: {kind}"),
            "content-security-policy: default-src 'none'; script-src 'self';".to_owned(),
            "frame-ancestors 'none'".to_owned(),
            "x-content-type-options: nosniff".to_owned(),
            "referrer-policy: no-referrer".to_owned(),
            "cache-control: no-store".to_owned(),
        ] {
            assert!(answer.head.contains(&expected), "{path}: {expected} in {}", answer.head);
        }
    }
    // What the policy forbids is not in the page.
    let page = get(address, "/").await.body;
    assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("<script>"));
    for file in page.split(['"']).filter(|it| it.starts_with("/console/")) {
        assert_eq!(get(address, file).await.status, 200, "{file}");
    }
}

#[tokio::test]
async fn with_a_token_only_who_has_it_is_an_operator() {
    let (_dir, path) = token_file(&format!("{TOKEN}\n"), 0o600);
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let broker = broker(|config| {
        config.admin = Some(everywhere.into());
        config.console.token_file = Some(path);
    });
    let broker = broker.await;
    let address = SocketAddr::from(([127, 0, 0, 1], broker.admin_addr().unwrap().port()));
    let given = format!("Authorization: Bearer {TOKEN}");
    let host = "Host: broker.example";
    for path in ["/api/v1/overview", "/api/v1/live", "/metrics"] {
        for wrong in
            ["A: b", "Authorization: Bearer", "Authorization: Bearer a-token-of-some-lengtH"]
        {
            let answer = request(address, &format!("GET {path}"), &[host, wrong], "").await;
            assert_eq!(answer.status, 401, "{path} {wrong}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        }
    }
    for path in ["/api/v1/overview", "/metrics"] {
        let answer = request(address, &format!("GET {path}"), &[host, &given], "").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    // The page tells nothing, and asks for the token.
    for path in ["/", "/console/main.js", "/livez", "/readyz"] {
        assert_eq!(
            request(address, &format!("GET {path}"), &[host], "").await.status,
            200,
            "{path}"
        );
    }
    let post = "POST /api/v1/agents/drain";
    let act = |headers: Vec<&'static str>, token: Option<&'static str>| {
        let given = token.map(|token| format!("Authorization: Bearer {token}"));
        async move {
            let headers = headers.into_iter().chain(given.as_deref()).collect::<Vec<_>>();
            request(address, post, &headers, "{\"agent\":\"w\"}").await.status
        }
    };
    let json = "Content-Type: application/json";
    assert_eq!(act(vec![host, json], None).await, 401);
    assert_eq!(act(vec![host, json], Some(TOKEN)).await, 404);
    assert_eq!(act(vec![host], Some(TOKEN)).await, 415);
    assert_eq!(act(vec![host, json, "Origin: https://evil.example"], Some(TOKEN)).await, 403);
    assert_eq!(act(vec![host, json, "Origin: https://broker.example"], Some(TOKEN)).await, 404);
}

#[tokio::test]
async fn an_address_that_other_machines_reach_needs_a_token_or_has_only_metrics() {
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = mcp_broker::Broker::builder().admin(everywhere).start().await;
    let Err(StartError::Config(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("console.token_file"), "{error}");
    for (text, mode, problem) in [(TOKEN, 0o644, "chmod 600"), ("short", 0o600, "16 to 4096")] {
        let (_dir, path) = token_file(text, mode);
        let mut config = mcp_broker::Config::default();
        config.listen.set_port(0);
        config.console.token_file = Some(path);
        let refused = mcp_broker::Broker::builder().config(config).admin(everywhere).start().await;
        let Err(error @ StartError::AdminToken { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!error.to_string().contains(text), "{error}");
    }
    let scraped = broker(|config| {
        config.admin = Some(everywhere.into());
        config.console.metrics_public = true;
    });
    let scraped = scraped.await;
    let address = SocketAddr::from(([127, 0, 0, 1], scraped.admin_addr().unwrap().port()));
    assert_eq!(get(address, "/metrics").await.status, 200);
    for path in ["/api/v1/overview", "/api/v1/live", "/"] {
        let answer = get(address, path).await;
        assert!(answer.status == 403 && answer.body.contains("console.token_file"), "{path}");
    }
}

#[tokio::test]
async fn acts_and_refusals_are_in_the_audit_log_with_where_they_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let broker = broker(|config| {
        config.admin = Some("0".parse().unwrap());
        config.audit.file = Some(path.clone());
    });
    let broker = broker.await;
    let address = broker.admin_addr().unwrap();
    let _worker = RawPeer::worker(&broker, "w", "a", 1).await;
    post(address, "agents/drain", &json!({"agent": "w", "why": "disk"})).await;
    look(address, "agents/list").await;
    request(address, "GET /api/v1/overview", &["Host: evil.example"], "").await;
    within("the shutdown", broker.shutdown()).await;
    let text = std::fs::read_to_string(path).unwrap();
    let records: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let find = |what: &str| records.iter().find(|it| it["what"] == what).unwrap();
    let drained = find("mcp.admin.agents.drain");
    assert_eq!((&drained["identity"], &drained["outcome"]), (&json!("console"), &json!("ok")));
    assert_eq!(drained["details"], json!({"agent": "w", "why": "disk"}));
    let refused = find("admin");
    assert!(refused["reason"].as_str().unwrap().contains("evil.example"), "{refused}");
    for record in [drained, refused] {
        assert!(record["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
    }
    assert!(!text.contains("agents.list"));
}

/// A listener that has seen its first snapshot.
async fn listener(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains("\n\n") && !text.contains("429") {
        let read = within("a snapshot", stream.read(&mut bytes)).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(str::from_utf8(&bytes[..read]).unwrap());
    }
    (stream, text)
}

#[tokio::test]
async fn whoever_looks_on_gets_snapshots_and_only_so_many_do() {
    let (broker, address) = admin_broker().await;
    let flow = Flow::start(&broker).await;
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS {
        let (stream, text) = listener(address).await;
        assert!(text.to_ascii_lowercase().contains("content-type: text/event-stream"), "{text}");
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let snapshot: Value = serde_json::from_str(data).unwrap();
        assert_eq!(snapshot["actions"][0]["action"], "flow");
        assert!(snapshot["journal"].is_null());
        listeners.push(stream);
    }
    let (_, refused) = listener(address).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    flow.goes_on().await;
    drop(listeners);
    // Their places are free again as soon as it is noticed that they are gone.
    within("a place", async { while !listener(address).await.1.starts_with("HTTP/1.1 200") {} })
        .await;
    flow.finish().await;
    within("the shutdown", broker.shutdown()).await;
}
