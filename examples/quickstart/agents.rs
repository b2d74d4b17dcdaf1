//! The workers, and how they do their work.

use std::time::Duration;

use mcp_client::backend::exec::Exec;
use mcp_client::{ConnectError, Endpoint, HandlerError, Job, Worker};
use serde::{Deserialize, Serialize};
use whatlang::detect;

/// What a task's payload looks like.
#[derive(Deserialize)]
struct Payload {
    text: String,
}

/// The result of `text-stats`.
#[derive(Serialize)]
struct Stats {
    characters: usize,
    words: usize,
    sentences: usize,
}

/// Connects and registers all workers.
pub(crate) async fn start(endpoint: &Endpoint) -> Result<Vec<Worker>, ConnectError> {
    let mut workers = Vec::new();

    // Two agents that serve the same action share its tasks.
    for agent_id in ["language-1", "language-2"] {
        let worker = Worker::builder(endpoint.clone())
            .agent_id(agent_id)
            .slots(4)
            .handler("detect-language", detect_language)
            .start();
        workers.push(worker.await?);
    }

    // One agent may serve several actions. It has slots enough that the slow ones hold up nothing.
    let text = Worker::builder(endpoint.clone())
        .agent_id("text")
        .slots(16)
        .handler("text-stats", text_stats)
        .handler("slow-summary", slow_summary)
        .start();
    workers.push(text.await?);

    // Any program can be a handler: the body on its stdin, the result from its stdout.
    let words = Worker::builder(endpoint.clone())
        .agent_id("words")
        .slots(2)
        .handler("word-count", Exec::new("env", ["LC_ALL=C.UTF-8", "wc", "-w"]))
        .start();
    workers.push(words.await?);

    Ok(workers)
}

/// Identifies the language of a text with a trigram model: `"fra"`.
async fn detect_language(job: Job) -> Result<&'static str, HandlerError> {
    let Payload { text } = serde_json::from_slice(&job.body)?;
    let info = detect(&text).ok_or_else(|| HandlerError::new("there is nothing to go by"))?;
    if !info.is_reliable() {
        return Err(HandlerError::new(format!("perhaps {}, not certain", info.lang().code())));
    }
    Ok(info.lang().code())
}

/// Counts characters, words and sentences.
async fn text_stats(job: Job) -> Result<String, HandlerError> {
    const SENTENCE_ENDS: [char; 11] = ['.', '!', '?', '。', '！', '？', '।', '።', '։', '။', '۔'];
    let Payload { text } = serde_json::from_slice(&job.body)?;
    let sentences =
        text.split(SENTENCE_ENDS).filter(|sentence| sentence.contains(char::is_alphanumeric));
    Ok(serde_json::to_string(&Stats {
        characters: text.chars().count(),
        words: text.split_whitespace().count(),
        sentences: sentences.count(),
    })?)
}

/// Takes far longer than its tasks have to live. At its deadline this future is dropped, wherever
/// it is.
async fn slow_summary(_job: Job) -> Result<&'static str, HandlerError> {
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok("never said")
}
