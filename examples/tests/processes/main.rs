//! The promises of the whole, with the real programs: started, killed, cut off, restarted.

// The promises are asserted; a surprise shall panic where it is.
#![allow(clippy::unwrap_used)]

mod backends;
mod bad_network;
mod broker_restarts;
mod clients_cut_off;
mod command_line;
mod configuration;
mod contexts;
mod durable;
mod operators;
mod proxy;
mod retries;
mod rolling_restart;
mod security;
mod streams;
mod support;
mod telemetry;
mod uploads;
mod workers_lost;
