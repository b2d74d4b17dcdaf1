//! Workers whose work is done by a server.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{BrokerProcess, Process, within};

const KEY: &str = "sk-secret";

/// A server of OpenAI's API, and a worker that uses it.
struct Model {
    listener: TcpListener,
    _worker: Process,
}

/// A request, and the connection that it came on.
struct Request {
    connection: TcpStream,
    head: String,
    body: Value,
}

impl Model {
    async fn start(broker: &BrokerProcess) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let arguments = ["worker", "--action", "work", "--openai", &url, "--model", "smol"];
        let mut command = broker.mcpctl(&arguments);
        command.env("OPENAI_API_KEY", KEY);
        Self { listener, _worker: broker.registered(command).await }
    }

    async fn request(&self) -> Request {
        within("the worker asks the model", async {
            let (mut connection, _) = self.listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            connection.read_exact(&mut body).await.unwrap();
            Request { connection, head, body: serde_json::from_slice(&body).unwrap() }
        })
        .await
    }
}

impl Request {
    async fn begin(&mut self) {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        self.connection.write_all(head.as_bytes()).await.unwrap();
    }

    async fn delta(&mut self, text: &str) {
        let chunk = json!({ "choices": [{ "delta": { "content": text } }] });
        let event = format!("data: {chunk}\n\n");
        self.connection.write_all(event.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_language_model_answers() {
    let broker = BrokerProcess::start().await;
    let model = Model::start(&broker).await;
    let mut call = broker.mcpctl(&["call", "work", "--data", "Say hello."]);
    let call = tokio::spawn(call.kill_on_drop(true).output());
    let mut request = model.request().await;
    assert!(request.head.contains(&format!("authorization: Bearer {KEY}\r\n")), "{}", request.head);
    assert_eq!(request.body["model"], "smol");
    assert_eq!(request.body["messages"], json!([{ "role": "user", "content": "Say hello." }]));
    request.begin().await;
    for text in ["Hello", ", ", "world."] {
        request.delta(text).await;
    }
    request.connection.write_all(b"data: [DONE]\n\n").await.unwrap();
    let output = within("the call ends", call).await.unwrap().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"Hello, world."[..]));
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let broker = BrokerProcess::start().await;
    let model = Model::start(&broker).await;
    let mut call = broker.mcpctl(&["call", "work", "--data", "Say hello."]);
    let call = tokio::spawn(call.kill_on_drop(true).output());
    let mut request = model.request().await;
    request.begin().await;
    request.delta("Hello").await;
    drop(request);
    let output = within("the call ends", call).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("before the end of its answer") && !told.contains(KEY), "{told}");
}

#[tokio::test]
async fn cancelling_a_task_ends_its_request() {
    let broker = BrokerProcess::start().await;
    let model = Model::start(&broker).await;
    let mut call = Process::start(&mut broker.mcpctl(&["call", "work", "--data", "Say hello."]));
    let mut request = model.request().await;
    request.begin().await;
    request.delta("Hello").await;
    call.signal(Signal::INT);
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = within("the request is closed", request.connection.read_to_end(&mut rest)).await;
    assert_eq!(call.ended().await.code(), Some(130));
}

#[tokio::test]
async fn an_echo_answers_with_the_input() {
    let broker = BrokerProcess::start().await;
    let command = broker.mcpctl(&["worker", "--action", "work", "--echo"]);
    let _worker = broker.registered(command).await;
    let call = broker.mcpctl(&["call", "work", "--data", "hello"]).output();
    let output = within("the call ends", call).await.unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"hello"[..]), "{output:?}");
}
