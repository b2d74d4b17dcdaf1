//! The JSON form of a task.

use mcp_proto::json::JsonTask;

use crate::memory;

/// What reading takes at most for each byte of the text: an entry of an object has five or more, and its
/// place in a list, which is copied when it grows, 40.
const MAX_PER_BYTE: usize = 64;
const MAX_OTHERWISE: usize = 64 * 1024;

/// An error is for a person.
const MAX_ERROR_BYTES: usize = 2 * 1024;

/// A text is read as a task or refused; written, that is read as the same again.
pub fn json(data: &[u8]) {
    let max_bytes = MAX_PER_BYTE * data.len() + MAX_OTHERWISE;
    let it = match memory::within(max_bytes, || JsonTask::from_json(data)) {
        Ok(it) => it,
        Err(error) => {
            let error = error.to_string();
            return assert!(error.len() <= MAX_ERROR_BYTES, "{error}");
        }
    };
    let text = it.to_json().unwrap();
    let again = JsonTask::from_json(&text).unwrap();
    assert_eq!(again, it, "{text}");
    assert_eq!(again.to_json().unwrap(), text);
    // A header may say that it is a shadow task.
    let mut sent = it.task.encode().decode().unwrap();
    assert!(sent.shadow || !it.task.shadow);
    sent.shadow = it.task.shadow;
    assert_eq!(sent, it.task);
}
