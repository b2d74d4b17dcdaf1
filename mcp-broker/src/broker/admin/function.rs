//! The names of the broker's own actions.

/// Actions of this prefix are the broker's own; no worker is asked.
pub(in crate::broker) const PREFIX: &str = "mcp.admin.";

macro_rules! functions {
    ($($name:literal => $function:ident, $doc:literal;)*) => {
        /// What an operator can ask of the broker, and have it do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum AdminFunction {
            $(#[doc = $doc] $function,)*
        }

        impl AdminFunction {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$function),*];

            /// Its name, which is that of its built-in action without `mcp.admin.`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$function => $name,)*
                }
            }
        }
    };
}

functions! {
    "actions.list" => ActionsList, "Actions, by name.";
    "actions.show" => ActionsShow, "One action, with its rules and queues.";
    "actions.set" => ActionsSet, "Changes rules of an action.";
    "actions.reset" => ActionsReset, "Gives an action the rules of the configuration again.";
    "actions.degrade" => ActionsDegrade, "Keeps an action's tasks from its workers.";
    "actions.restore" => ActionsRestore, "Gives an action's tasks to its workers again.";
    "agents.list" => AgentsList, "Agents, by name.";
    "agents.show" => AgentsShow, "One agent, with what it holds and did lately.";
    "agents.drain" => AgentsDrain, "Keeps new tasks from an agent.";
    "agents.resume" => AgentsResume, "Lets an agent have tasks again.";
    "dead_letters.list" => DeadLettersList, "Dead letters, the newest first.";
    "dead_letters.show" => DeadLettersShow, "One dead letter, with its input.";
    "dead_letters.replay" => DeadLettersReplay, "Has a dead letter done again.";
    "dead_letters.drop" => DeadLettersDrop, "Drops a dead letter.";
    "explain" => Explain, "What would become of a task, and why.";
    "overview" => Overview, "The broker at a glance.";
    "stats" => Stats, "Counters and gauges.";
    "tasks.list" => TasksList, "Tasks in flight, and the last that ended.";
    "tasks.show" => TasksShow, "One task, with its way.";
    "tasks.cancel" => TasksCancel, "Ends a task.";
}

impl AdminFunction {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|function| function.name() == name)
    }

    /// Whether it changes anything. The others only look.
    pub fn is_act(self) -> bool {
        match self {
            Self::ActionsSet
            | Self::ActionsReset
            | Self::ActionsDegrade
            | Self::ActionsRestore
            | Self::AgentsDrain
            | Self::AgentsResume
            | Self::DeadLettersReplay
            | Self::DeadLettersDrop
            | Self::TasksCancel => true,
            Self::ActionsList
            | Self::ActionsShow
            | Self::AgentsList
            | Self::AgentsShow
            | Self::DeadLettersList
            | Self::DeadLettersShow
            | Self::Explain
            | Self::Overview
            | Self::Stats
            | Self::TasksList
            | Self::TasksShow => false,
        }
    }
}
