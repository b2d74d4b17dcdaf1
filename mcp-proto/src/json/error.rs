use super::field;

/// Why a text is not the JSON form of a task, or why a task has no JSON form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is longer than any task can be.
    #[error("a text of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// [`MAX_JSON_BYTES`](super::MAX_JSON_BYTES).
        max: usize,
    },
    /// It is not JSON.
    #[error("not JSON: {problem} at line {line} column {column}")]
    Malformed {
        /// What is wrong there.
        problem: String,
        /// From 1.
        line: usize,
        /// In bytes, from 1; 0 at the very start of a line.
        column: usize,
    },
    /// It is JSON, but not an object.
    #[error("not a task: must be a JSON object, found {found}")]
    NotAnObject {
        /// What it is instead, for people.
        found: String,
    },
    /// A required field is not there.
    #[error("field \"{field}\" is missing: must be {expected}")]
    Missing {
        /// Its name.
        field: &'static str,
        /// What it should be, to be read after "must be".
        expected: String,
    },
    /// A field has a value that is not allowed.
    #[error("field \"{field}\" must be {expected}, found {found}")]
    Wrong {
        /// Its name, with the entry's behind a dot for labels and headers.
        field: String,
        /// What it should be, to be read after "must be".
        expected: String,
        /// What it is instead, for people; long values are cut.
        found: String,
    },
    /// A field or an entry of labels or headers is there twice.
    #[error("field \"{field}\" is given twice")]
    Repeated {
        /// Its name.
        field: String,
    },
    /// A field that tasks do not have.
    #[error("field \"{field}\" is unknown; allowed are {} and names that begin with x-", field::ALL.join(", "))]
    Unknown {
        /// Its name.
        field: String,
    },
    /// The writer speaks another major version.
    #[error("field \"mcp_version\" is \"{found}\"; spoken here is {}", crate::MCP_VERSION)]
    UnsupportedVersion {
        /// The version it names.
        found: String,
    },
    /// Arrays and objects within each other are too deep.
    #[error("field \"payload\" is nested deeper than {max}")]
    TooDeep {
        /// [`MAX_JSON_DEPTH`](super::MAX_JSON_DEPTH).
        max: usize,
    },
    /// The labels, headers and texts of the task are together too long for a frame.
    #[error("the task's fields without its payload take {bytes} bytes; at most {max} are allowed")]
    TaskTooLong {
        /// Their length on the wire.
        bytes: usize,
        /// [`MAX_TASK_BYTES`](crate::limits::MAX_TASK_BYTES).
        max: usize,
    },
}
