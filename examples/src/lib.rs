//! Programs that show how MCP, the Model Communication Protocol, is used:
//!
//! * `quickstart`: a broker, four workers and 240 tasks in one program, which checks itself,
//! * `client` and `worker`: the least that each of them needs.
//!
//! `cargo run --release --example quickstart`
