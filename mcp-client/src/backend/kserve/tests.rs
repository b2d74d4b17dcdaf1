use serde_json::Value;

use super::*;
use crate::backend::testing::server::HttpServer;
use crate::backend::testing::{call, job, job_of};

#[tokio::test]
async fn a_model_infers_and_answers_json() {
    let server = HttpServer::start().await;
    let kserve = KServe::new(&server.url(""), "bert_1.0").unwrap();
    let answer = r#"{"model_name":"bert_1.0","outputs":[]}"#;
    let (reply, ()) = tokio::join!(call(&kserve, job("hello")), async {
        let mut exchange = server.accept().await;
        assert!(exchange.head.starts_with("POST /v2/models/bert_1.0/infer HTTP/1.1\r\n"));
        assert_eq!(exchange.header("content-type"), Some("application/json"));
        let tensor =
            json!({ "name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hello"] });
        assert_eq!(exchange.json(), json!({ "inputs": [tensor] }));
        exchange.answer("200 OK\r\nContent-Type: application/json", answer).await;
    });
    assert_eq!(reply.unwrap(), HandlerReply::new(answer).content_type("application/json"));
}

#[tokio::test]
async fn a_refusal_is_told() {
    let server = HttpServer::start().await;
    let kserve = KServe::new(&server.url("/triton/"), "m").unwrap();
    let (reply, ()) = tokio::join!(call(&kserve, job("hello")), async {
        let mut exchange = server.accept().await;
        assert!(exchange.head.starts_with("POST /triton/v2/models/m/infer "));
        exchange.answer("400 Bad Request", r#"{"error":"no such tensor"}"#).await;
    });
    let error = reply.unwrap_err();
    assert!(
        error.info().message.ends_with(r#"400 Bad Request: {"error":"no such tensor"}"#),
        "{error}"
    );
}

#[test]
fn requests_are_passed_on_and_texts_are_wrapped() {
    let made = |body: &str, content_type: &str| request(&job_of(body.to_owned(), content_type));
    let whole = r#"{ "inputs": [], "id": "7" }"#;
    for content_type in ["", "application/json"] {
        assert_eq!(made(whole, content_type).unwrap(), whole);
    }
    assert!(made(whole, "text/plain").unwrap().starts_with(b"{\"inputs\":[{"));
    for text in ["", "[1]", r#"{"input":1}"#, r#"{"inputs":"#] {
        let wrapped: Value = serde_json::from_slice(&made(text, "").unwrap()).unwrap();
        assert_eq!(wrapped["inputs"][0]["data"][0], text);
        assert_eq!(made(text, "application/json"), Err(RequestError::NoInputs));
    }
    assert_eq!(request(&job("\u{ff}")).map(drop), Ok(()));
    assert_eq!(request(&job(&b"\xff"[..])), Err(RequestError::NotText));
}

#[test]
fn a_models_name_is_a_part_of_a_path() {
    for name in ["", "a/b", "a?b", "a b", "a%2f", "ä"] {
        let error = KServe::new("http://host", name).unwrap_err();
        assert!(error.to_string().starts_with("the model "), "{error}");
    }
}
