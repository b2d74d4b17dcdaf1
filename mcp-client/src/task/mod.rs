//! One task: building it, waiting for it, and how it ended.

mod builder;
mod end;
mod handle;
mod input;
mod send;
mod stream;

pub use builder::TaskBuilder;
pub(crate) use end::Delivered;
pub use end::{Reply, TaskEnd};
pub use handle::TaskHandle;
pub use stream::{StreamEvent, TaskStream};
