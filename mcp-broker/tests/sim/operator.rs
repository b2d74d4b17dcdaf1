//! An operator, who has dead letters done again, or drops them.

use bytes::Bytes;
use mcp_proto::{Message, Send, Task, TaskId};
use serde_json::{Value, json};

use crate::sim::Sim;

impl Sim {
    /// Some dead letter is done again, or dropped.
    pub(crate) fn operate(&mut self) {
        let letters = self.dead_letters();
        if letters.is_empty() {
            return;
        }
        let id = self.world.rng.pick(&letters);
        if self.world.rng.chance(30) {
            self.drop_dead_letter(&id);
        } else {
            self.world.oracle.may_replay(&id);
            let ttl_ms = self.world.rng.time_us(self.world.plan.ttl_ms.clone());
            let asked = json!({"task_id": id, "ttl_ms": ttl_ms});
            self.administer("replay", &asked);
            self.world.oracle.no_replays();
        }
    }

    pub(crate) fn drop_dead_letter(&mut self, id: &str) {
        self.administer("drop", &json!({"task_id": id}));
    }

    /// The tasks that there are dead letters of.
    pub(crate) fn dead_letters(&mut self) -> Vec<String> {
        let list = self.administer("list", &json!({"limit": 1000})).unwrap_or_default();
        let rows = list["dead_letters"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["task_id"].as_str().unwrap().to_owned()).collect()
    }

    fn administer(&mut self, what: &str, asked: &Value) -> Option<Value> {
        let action = format!("mcp.admin.dead_letters.{what}");
        let id = TaskId::try_from("operator").unwrap();
        let task = Task::new(id, action.as_str().try_into().unwrap());
        let send = Message::Send(Send::new(task.encode(), 1_000));
        let answers = self.broker.ask(send, Bytes::from(asked.to_string()), &mut self.world);
        let is_it = |message: &Message| matches!(message, Message::Deliver(it) if it.task_id.as_str() == "operator");
        let answer = answers.iter().find(|frame| is_it(&frame.message))?;
        serde_json::from_slice(&answer.body).ok()
    }
}
