//! A configuration from several sources: flags before environment variables before a file before
//! defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde::de::Error as _;
use toml::{Table, Value};

use super::Config;
use super::environment;
use super::error::{ConfigError, Problem};
use super::file::File;
use super::origin::{Origin, Origins};

/// Where a configuration comes from. It can be loaded again when a file has changed.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Vec<(&'static str, &'static str, Value)>,
    dev_state_dir: Option<PathBuf>,
}

/// A configuration, and where it comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Where the values come from that are no defaults.
    pub origins: Origins,
}

impl Layers {
    /// Defaults, and nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// A TOML file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Environment variables, `MCP_LIMITS__MAX_TASKS` for `limits.max_tasks`. A number, a list or a
    /// table is written as in TOML, a text as it is. What is empty, or no key's, does not count.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// What a flag says of the key of this path.
    #[must_use]
    pub fn flag(mut self, flag: &'static str, path: &'static str, value: impl Into<Value>) -> Self {
        self.flags.push((flag, path, value.into()));
        self
    }

    /// The state directory where `tls.dev` is set, which needs one, and nothing says which.
    #[must_use]
    pub fn dev_state_dir(mut self, path: Option<PathBuf>) -> Self {
        self.dev_state_dir = path;
        self
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads, merges and checks everything.
    ///
    /// # Errors
    /// All that is wrong with keys and types, or the first value that is not allowed, each with its
    /// place.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let (schema, keys) = (Config::schema(), Config::keys());
        let (mut table, mut origins) = (Table::new(), Origins::default());
        let mut problems = Vec::new();
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            let found = File::scan(path, &text, &schema, &keys)
                .map_err(|problem| ConfigError::Wrong(vec![problem]))?;
            origins = found.origins;
            problems = found.problems;
            let typed = toml::from_str::<Config>(&text).and_then(|_| toml::from_str(&text));
            match typed {
                Ok(read) => table = read,
                // Keys that don't exist have been told, with more.
                Err(_) if !problems.is_empty() => {}
                Err(error) => {
                    let problem = File::of_error(path, &text, &error);
                    problems.push(named(problem, &origins));
                }
            }
        }
        let (variables, wrong) = environment::read(&self.environment, &keys);
        problems.extend(wrong);
        if !problems.is_empty() {
            return Err(ConfigError::Wrong(problems));
        }
        let variables = variables
            .into_iter()
            .map(|(path, value, name)| (path, value, Origin::Environment(name)));
        let flags = self
            .flags
            .iter()
            .map(|(flag, path, value)| ((*path).to_owned(), value.clone(), Origin::Flag(flag)));
        for (path, value, origin) in variables.chain(flags) {
            put(&mut table, &path, value);
            if let Err(error) = Config::deserialize(table.clone()) {
                let problem = error.message().trim().to_owned();
                let problem = Problem { place: origin.to_string(), key: path, problem };
                return Err(ConfigError::Wrong(vec![problem]));
            }
            origins.insert(path, origin);
        }
        let mut config = config_of(table).map_err(|error| {
            let place =
                self.file.as_deref().map_or_else(String::new, |it| it.display().to_string());
            let problem = error.message().trim().to_owned();
            ConfigError::Wrong(vec![Problem { place, key: String::new(), problem }])
        })?;
        if config.tls.dev
            && config.state_dir.is_none()
            && let Some(path) = &self.dev_state_dir
        {
            config.state_dir = Some(path.clone());
            origins.insert("state_dir".to_owned(), Origin::Follows("tls.dev"));
        }
        config.check().map_err(|error| placed(error, &origins))?;
        Ok(Loaded { config, origins })
    }
}

/// Each of the actions has what `scheduling` says where it says nothing itself.
fn config_of(mut table: Table) -> Result<Config, toml::de::Error> {
    let actions = match table.remove("actions") {
        Some(Value::Table(actions)) => actions,
        _ => Table::new(),
    };
    let mut config = Config::deserialize(table)?;
    for (name, part) in actions {
        let rules = serde_json::to_value(part).and_then(|part| config.scheduling.merged(part));
        let name = name.as_str().try_into().map_err(toml::de::Error::custom)?;
        config.actions.insert(name, rules.map_err(toml::de::Error::custom)?);
    }
    Ok(config)
}

/// Sets a key of a table in a table. What is in its way has a wrong type.
fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Table::new().into());
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The same with the key of its line, if that has but one.
fn named(problem: Problem, origins: &Origins) -> Problem {
    let is_there = |path: &&str| origins.of(path).is_some_and(|it| it.to_string() == problem.place);
    let mut there = origins.paths().filter(is_there);
    match (there.next(), there.next()) {
        (Some(key), None) => Problem { key: format!("{key}:"), ..problem },
        _ => problem,
    }
}

/// A value that is not allowed, with its place.
fn placed(error: ConfigError, origins: &Origins) -> ConfigError {
    match error {
        ConfigError::Value { key, problem } => match origins.of(&key) {
            Some(origin) => {
                let (place, key) = (origin.to_string(), key.into_owned());
                ConfigError::Wrong(vec![Problem { place, key, problem }])
            }
            None => ConfigError::Value { key, problem },
        },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn layers(&self, text: &str) -> Layers {
            let path = self.0.path().join("broker.toml");
            std::fs::write(&path, text).unwrap();
            Layers::new().file(path)
        }
    }

    fn variables(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn dir() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    #[test]
    fn flags_go_before_variables_before_the_file_before_defaults() {
        let dir = dir();
        let layers = dir
            .layers("threads = 2\nlisten = '127.0.0.1:1'\n[limits]\nmax_tasks = 3\nmax_agents = 4")
            .environment(variables(&[
                ("MCP_LISTEN", "127.0.0.1:2"),
                ("MCP_LIMITS__MAX_TASKS", "5"),
                ("MCP_TIMING__DRAIN_MS", "6"),
            ]))
            .flag("--listen", "listen", "127.0.0.1:3");
        let Loaded { config, origins } = layers.load().unwrap();
        assert_eq!(config.listen.port(), 3);
        assert_eq!((config.threads, config.limits.max_tasks), (2, 5));
        assert_eq!((config.limits.max_agents, config.timing.drain_ms), (4, 6));
        assert_eq!(config.limits.max_sessions, 100_000);
        let origin =
            |path| origins.of(path).map(|it| it.to_string().rsplit('/').next().unwrap().to_owned());
        for (path, expected) in [
            ("listen", Some("--listen")),
            ("limits.max_tasks", Some("MCP_LIMITS__MAX_TASKS")),
            ("limits.max_agents", Some("broker.toml:5")),
            ("threads", Some("broker.toml:1")),
            ("timing.drain_ms", Some("MCP_TIMING__DRAIN_MS")),
            ("limits.max_sessions", None),
        ] {
            assert_eq!(origin(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_variable_is_for_all_actions_that_say_nothing_themselves() {
        let dir = dir();
        let text = "[actions.a]\nage_ms = 7\n[actions.b]\npolicy = 'p2c'";
        let rules = variables(&[("MCP_SCHEDULING__POLICY", "round_robin")]);
        let config = dir.layers(text).environment(rules).load().unwrap().config;
        let policy = |action: &str| format!("{:?}", config.actions[action].policy);
        assert_eq!([policy("a"), policy("b")], ["RoundRobin", "P2c"]);
        assert_eq!(config.actions["a"].age_ms, 7);
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_place_and_the_right_key() {
        let dir = dir();
        for (text, expected) in [
            (
                "[limits]\nmax_conections = 7",
                "broker.toml:2: limits.max_conections is not a key of the configuration; limits.max_connections is",
            ),
            (
                "\n[limit]\nmax_tasks = 7",
                "broker.toml:2: limit is not a key of the configuration; limits is",
            ),
            (
                "[limits]\ndrain_ms = 7",
                "broker.toml:2: limits.drain_ms is not a key of the configuration; timing.drain_ms is",
            ),
            (
                "[tls]\nqqqqqqqqqqqq = 7",
                "tls.qqqqqqqqqqqq is not a key of the configuration; tls has cert_file, dev",
            ),
            (
                "[actions.a]\npolcy = 'x'",
                "broker.toml:2: actions.\"a\".polcy is not a key of the configuration; actions.\"a\".policy is",
            ),
            (
                "[actions.a.breaker]\nfailure = 1",
                "actions.\"a\".breaker.failure is not a key of the configuration; actions.\"a\".breaker.failures is",
            ),
            (
                "[scheduling]\nsplit = [{ name = 'x', label = {} }]",
                "scheduling.split.label is not a key of the configuration; scheduling.split.labels is",
            ),
            ("a = 1\nlimits = {}\nb = 2", "broker.toml:1: a is not a key of the configuration"),
            ("a = 1\nlimits = {}\nb = 2", "broker.toml:3: b is not a key of the configuration"),
            ("listen = \n", "broker.toml:1: "),
            ("[limits]\nmax_tasks = 'many'", "broker.toml:2: limits.max_tasks: invalid type"),
            (
                "[limits]\n\nmax_tasks = 0",
                "broker.toml:3: limits.max_tasks is 0; it must be at least 1",
            ),
            (
                "[scheduling.rate_limit]\nper_s = -1",
                "broker.toml:2: scheduling.rate_limit.per_s is -1",
            ),
            ("[actions.'a b']", "a b"),
            ("[tls]\ncert_file = 'c'", "tls.key_file is missing"),
        ] {
            let error = dir.layers(text).load().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected} is not in {error}");
        }
        let layers = dir.layers("").environment(variables(&[("MCP_LIMITS__MAX_TASKS", "0")]));
        let error = layers.load().unwrap_err().to_string();
        assert_eq!(error, "MCP_LIMITS__MAX_TASKS: limits.max_tasks is 0; it must be at least 1");
        let layers = dir.layers("").environment(variables(&[("MCP_SCHEDULING__POLICY", "dice")]));
        let error = layers.load().unwrap_err().to_string();
        assert!(error.starts_with("MCP_SCHEDULING__POLICY: scheduling.policy "), "{error}");
        let error = Layers::new().file("/nowhere.toml").load().unwrap_err().to_string();
        assert!(error.starts_with("cannot read the configuration /nowhere.toml: "), "{error}");
    }

    #[test]
    fn a_development_broker_has_a_state_directory_unless_told_otherwise() {
        let layers = Layers::new().dev_state_dir(Some("/home/state".into()));
        assert_eq!(layers.load().unwrap().config.state_dir, None);
        let dev = layers.clone().flag("--dev", "tls.dev", true);
        let Loaded { config, origins } = dev.load().unwrap();
        assert_eq!(config.state_dir.as_deref(), Some(Path::new("/home/state")));
        assert_eq!(origins.of("state_dir"), Some(&Origin::Follows("tls.dev")));
        let other = dev.flag("--state", "state_dir", "/other").load().unwrap().config;
        assert_eq!(other.state_dir.as_deref(), Some(Path::new("/other")));
    }
}
