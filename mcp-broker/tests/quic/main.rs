//! The broker over real connections: peers here speak raw frames, so that they can also speak wrong
//! ones.

#![allow(clippy::unwrap_used)]

mod admin;
mod audit;
mod auth;
mod browser;
mod console;
mod contrib;
mod durable;
mod hostile;
mod journal;
mod limits;
mod order;
mod orders;
mod overload;
mod process;
mod reload;
mod round_trip;
mod shutdown;
mod slow;
mod support;
mod systemd;
