//! One task: building it, waiting for it, and how it ended.

mod builder;
mod end;
mod handle;
mod send;

pub use builder::TaskBuilder;
pub use end::{Reply, TaskEnd};
pub use handle::TaskHandle;
