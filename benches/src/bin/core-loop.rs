//! `core-loop TASKS [roles]`: so many tasks through the broker's core, for `callgrind.sh`; with `roles`
//! under a policy.

use std::process::ExitCode;

use mcp_bench::CoreLoop;

/// In the steady state, with all that is bounded full.
const WARM_UP: u64 = 20_000;

fn main() -> ExitCode {
    let Some(tasks) = std::env::args().nth(1).and_then(|it| it.parse::<u64>().ok()) else {
        eprintln!("usage: core-loop TASKS [roles]");
        return ExitCode::from(2);
    };
    let mut core = CoreLoop::new(10);
    if std::env::args().nth(2).as_deref() == Some("roles") {
        core.under_roles();
    }
    for _ in 0..WARM_UP + tasks {
        let send = core.send();
        core.step(send);
    }
    assert_eq!(core.delivered(), WARM_UP + tasks);
    ExitCode::SUCCESS
}
