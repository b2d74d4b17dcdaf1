//! The core's rules, by its public API: no socket, no clock. Each test reads like the promise that
//! it checks.

#![allow(clippy::unwrap_used)]

mod actions;
mod admission;
mod agents;
mod audit;
mod cancel;
mod degrade;
mod duplicates;
mod durable;
mod explain;
mod family;
mod fixture;
mod health;
mod hedge;
mod identities;
mod interleavings;
mod load;
mod lost;
mod metrics;
mod mirror;
mod operator;
mod operators;
mod overview;
mod peers;
mod permissions;
mod policies;
mod queue;
mod reconfigure;
mod retries;
mod sessions;
mod shadow;
mod shutdown;
mod split;
mod streams;
mod tasks;
mod traces;
mod turns;
mod uploads;
mod usage;
