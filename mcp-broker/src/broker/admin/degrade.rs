//! How operators keep an action from its workers, and give it back.

use mcp_proto::{ActionName, ErrorCode, ErrorInfo};
use serde::{Deserialize, Serialize};

use super::{check_why, is_builtin, json};
use crate::broker::fallback::Degraded;
use crate::broker::{Core, Now};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Degrade {
    action: String,
    #[serde(default)]
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restore {
    action: String,
}

#[derive(Serialize)]
struct Changed<'a> {
    action: &'a ActionName,
    /// Whether this changed anything.
    changed: bool,
    degraded: Option<&'a Degraded>,
}

impl Core {
    pub(super) fn degrade_for_operator(
        &mut self,
        now: Now,
        by: &str,
        asked: Degrade,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let action = named(&asked.action)?;
        check_why(&asked.why)?;
        let changed = self.degrade(now, &action, by.to_owned(), asked.why)?;
        self.told(&action, changed)
    }

    pub(super) fn restore_for_operator(
        &mut self,
        by: &str,
        asked: &Restore,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let action = named(&asked.action)?;
        let changed = self.restore(&action, by.to_owned());
        self.told(&action, changed)
    }

    fn told(&self, action: &ActionName, changed: bool) -> Result<Vec<u8>, ErrorInfo> {
        json(&Changed { action, changed, degraded: self.degraded.get(action) })
    }
}

fn named(action: &str) -> Result<ActionName, ErrorInfo> {
    let wrong = |problem: String| ErrorInfo::new(ErrorCode::InvalidTask, problem);
    let action =
        ActionName::try_from(action).map_err(|problem| wrong(format!("action {problem}")))?;
    match is_builtin((&action).into()) {
        true => Err(wrong(format!("action {action} is the broker's own"))),
        false => Ok(action),
    }
}
