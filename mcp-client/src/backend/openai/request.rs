//! What the model is asked: the request that a task becomes.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::backend::is_of_type;
use crate::worker::Job;

/// A task that is no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error(
        "the task says it is JSON, but it is no object with `prompt` or `messages` (to have it \
         taken as a prompt, say content type text/plain)"
    )]
    NeitherPromptNorMessages,
    #[error("the task is neither JSON nor UTF-8 text")]
    NotText,
    #[error("the task's {field} is not {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error("the task asks for {what}, which can't be in a result that is one text")]
    NotOneText { what: &'static str },
}

#[derive(Default, Deserialize)]
struct Context {
    #[serde(default)]
    history: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    /// A text, or an array of parts.
    content: Value,
}

/// The request's JSON. `model` is used whatever the task says.
pub(super) fn of(job: &Job, model: Option<&str>) -> Result<Bytes, RequestError> {
    let may_be_json = !is_of_type(&job.task.content_type, "text/plain");
    let object = may_be_json.then(|| serde_json::from_slice::<Map<String, Value>>(&job.body).ok());
    let mut request = match object.flatten() {
        Some(object) if object.contains_key("messages") => object,
        Some(object) if object.contains_key("prompt") => with_messages(object)?,
        _ if is_of_type(&job.task.content_type, "application/json") => {
            return Err(RequestError::NeitherPromptNorMessages);
        }
        _ => {
            let prompt = str::from_utf8(&job.body).map_err(|_| RequestError::NotText)?;
            Map::from_iter([("messages".to_owned(), json!([user(prompt)]))])
        }
    };
    check_is_one_text(&request)?;
    if let Some(model) = model {
        request.insert("model".to_owned(), model.into());
    }
    request.insert("stream".to_owned(), true.into());
    let options = request.entry("stream_options").or_insert_with(|| json!({}));
    match options.as_object_mut() {
        Some(options) => {
            options.insert("include_usage".to_owned(), true.into());
        }
        None => *options = json!({ "include_usage": true }),
    }
    Ok(Value::Object(request).to_string().into())
}

/// Puts the history and the prompt in the place of `prompt` and `context`.
fn with_messages(mut object: Map<String, Value>) -> Result<Map<String, Value>, RequestError> {
    let Some(Value::String(prompt)) = object.remove("prompt") else {
        return Err(RequestError::Field { field: "prompt", expected: "a text" });
    };
    let context = match object.remove("context") {
        None | Some(Value::Null) => Context::default(),
        Some(context @ Value::Object(_)) => {
            serde_json::from_value(context).map_err(|_| RequestError::Field {
                field: "context.history",
                expected: "an array of objects with role and content",
            })?
        }
        Some(_) => return Err(RequestError::Field { field: "context", expected: "an object" }),
    };
    let history = context.history.into_iter();
    let mut messages: Vec<_> =
        history.map(|turn| json!({ "role": turn.role, "content": turn.content })).collect();
    messages.push(user(&prompt));
    object.insert("messages".to_owned(), messages.into());
    Ok(object)
}

fn user(prompt: &str) -> Value {
    json!({ "role": "user", "content": prompt })
}

fn check_is_one_text(request: &Map<String, Value>) -> Result<(), RequestError> {
    let is_asked = |field: &str| request.get(field).is_some_and(|value| !value.is_null());
    if is_asked("tools") || is_asked("functions") {
        return Err(RequestError::NotOneText { what: "calls of tools" });
    }
    if is_asked("n") && request["n"] != 1 {
        return Err(RequestError::NotOneText { what: "several answers (n)" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::job_of;

    fn parsed(body: &[u8], content_type: &str, model: Option<&str>) -> Result<Value, RequestError> {
        let job = job_of(body.to_vec(), content_type);
        of(&job, model).map(|request| serde_json::from_slice(&request).unwrap())
    }

    fn messages(body: &str) -> Value {
        parsed(body.as_bytes(), "", None).unwrap()["messages"].clone()
    }

    #[test]
    fn a_text_is_a_prompt() {
        let request = parsed("Grüß Gott".as_bytes(), "text/plain", Some("m")).unwrap();
        let expected = json!({
            "messages": [{ "role": "user", "content": "Grüß Gott" }],
            "model": "m", "stream": true, "stream_options": { "include_usage": true },
        });
        assert_eq!(request, expected);
        // JSON that is neither form, and not said to be JSON, is a text, too.
        assert_eq!(messages(r#"{"a":1}"#)[0]["content"], r#"{"a":1}"#);
        assert_eq!(messages("7")[0]["content"], "7");
        // And JSON that is said to be a text.
        let request = parsed(br#"{"prompt":7}"#, "text/plain; charset=utf-8", None).unwrap();
        assert_eq!(request["messages"][0]["content"], r#"{"prompt":7}"#);
    }

    #[test]
    fn a_prompt_follows_its_history_and_takes_along_what_else_is_said() {
        let body = r#"{"prompt":"and now?","max_tokens":5,"context":{"history":[
            {"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"a"}]}
        ],"other":1}}"#;
        let request = parsed(body.as_bytes(), "application/json; charset=utf-8", None).unwrap();
        let expected = json!({
            "messages": [
                { "role": "system", "content": "be brief" },
                { "role": "user", "content": [{ "type": "text", "text": "a" }] },
                { "role": "user", "content": "and now?" },
            ],
            "max_tokens": 5, "stream": true, "stream_options": { "include_usage": true },
        });
        assert_eq!(request, expected);
        for body in [
            r#"{"prompt":"p"}"#,
            r#"{"prompt":"p","context":null}"#,
            r#"{"prompt":"p","context":{"history":[]}}"#,
        ] {
            assert_eq!(messages(body), json!([{ "role": "user", "content": "p" }]), "{body}");
        }
    }

    #[test]
    fn a_whole_request_is_kept_but_for_what_must_be() {
        let body = r#"{"messages":[],"model":"theirs","stream":false,"temperature":0.5,"n":1,"tools":null,"stream_options":{"x":1}}"#;
        let mut expected: Value = serde_json::from_str(body).unwrap();
        expected["stream"] = true.into();
        expected["stream_options"]["include_usage"] = true.into();
        assert_eq!(parsed(body.as_bytes(), "", None).unwrap(), expected);
        expected["model"] = "ours".into();
        assert_eq!(parsed(body.as_bytes(), "", Some("ours")).unwrap(), expected);
    }

    #[test]
    fn what_can_not_be_asked_says_why() {
        for (body, content_type, why) in [
            (&b"{}"[..], "application/json", "`prompt` or `messages`"),
            (b"not json", "application/json", "`prompt` or `messages`"),
            (b"\xff", "", "UTF-8"),
            (br#"{"prompt":7}"#, "", "prompt is not a text"),
            (br#"{"prompt":"p","context":[]}"#, "", "context is not an object"),
            (br#"{"prompt":"p","context":{"history":[1]}}"#, "", "context.history"),
            (br#"{"prompt":"p","context":{"history":[{"role":"user"}]}}"#, "", "context.history"),
            (br#"{"messages":[],"n":2}"#, "", "several answers"),
            (br#"{"messages":[],"tools":[]}"#, "", "calls of tools"),
        ] {
            let error = parsed(body, content_type, None).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
