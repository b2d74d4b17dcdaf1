//! The promises of the whole, with the real programs: started, killed, cut off, restarted.

mod broker_restarts;
mod clients_cut_off;
mod command_line;
mod proxy;
mod support;
mod workers_lost;
