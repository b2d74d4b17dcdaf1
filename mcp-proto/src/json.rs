//! The JSON form of a task.
