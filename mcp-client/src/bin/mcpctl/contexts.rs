//! The file of contexts: brokers by name.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::settings::{Settings, xdg_dir};

/// Names another file.
const FILE_VARIABLE: &str = "MCPCTL_CONFIG";

/// More than a thousand contexts have.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

const MAX_NAME_BYTES: usize = 64;

const HEADER: &str = "# Written by `mcpctl context`, which keeps no comments. Names of files only, \
                      no secrets.\n\n";

/// The name of a context: 1 to 64 of `[A-Za-z0-9._-]`, the first none of `.-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ContextName(String);

impl FromStr for ContextName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_name = (1..=MAX_NAME_BYTES).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.chars().all(is_of_a_name);
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err("is not 1 to 64 of [A-Za-z0-9._-], not beginning with . or -"),
        }
    }
}

impl TryFrom<String> for ContextName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContextName> for String {
    fn from(name: ContextName) -> Self {
        name.0
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the file has.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    current: Option<ContextName>,
    #[serde(default)]
    contexts: BTreeMap<ContextName, Settings>,
}

/// Brokers by name.
#[derive(Debug)]
pub(crate) struct Contexts {
    path: PathBuf,
    content: Content,
}

impl Contexts {
    /// Those of the [`file()`]; none when it is not there.
    pub(crate) fn load() -> Result<Self, Failure> {
        let path = file().ok_or_else(|| {
            Failure::usage(format_args!("where are contexts kept? set {FILE_VARIABLE}, or HOME"))
        })?;
        Self::load_from(path)
    }

    fn load_from(path: PathBuf) -> Result<Self, Failure> {
        // So that a link stays one when it is written, and paths mean the same from anywhere.
        let path = fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).unwrap_or(path);
        let unusable = |problem: &dyn fmt::Display| {
            Failure::usage(format_args!("cannot use {}: {problem}", path.display()))
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, content: Content::default() });
            }
            Err(error) => return Err(unusable(&error)),
        };
        let mut content: Content =
            toml::from_str(&text).map_err(|error| unusable(&error.to_string().trim_end()))?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        for (name, settings) in &mut content.contexts {
            check(settings).map_err(|problem| unusable(&format_args!("{name}: {problem}")))?;
            *settings = std::mem::take(settings).map_paths(|it| dir.join(it));
        }
        Ok(Self { path, content })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The one that counts when none is said.
    pub(crate) fn current(&self) -> Option<&ContextName> {
        self.content.current.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ContextName, &Settings)> {
        self.content.contexts.iter()
    }

    /// One of them, or what to do.
    pub(crate) fn get(&self, name: &ContextName) -> Result<&Settings, Failure> {
        self.content.contexts.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &ContextName) -> Failure {
        let names: Vec<_> = self.content.contexts.keys().map(ToString::to_string).collect();
        let there = match names.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        Failure::usage(format_args!(
            "no context {name} in {}; {there}\nto make it: mcpctl context set {name} --broker \
             HOST:PORT --ca FILE",
            self.path.display()
        ))
    }

    /// Makes a context what it is to be. Whether it is new.
    pub(crate) fn set(&mut self, name: ContextName, settings: Settings) -> Result<bool, Failure> {
        check(&settings).map_err(Failure::usage)?;
        Ok(self.content.contexts.insert(name, settings).is_none())
    }

    /// Chooses the current one; none: none is.
    pub(crate) fn choose(&mut self, name: Option<&ContextName>) -> Result<(), Failure> {
        if let Some(name) = name {
            self.get(name)?;
        }
        self.content.current = name.cloned();
        Ok(())
    }

    /// Whether it was the current one.
    pub(crate) fn remove(&mut self, name: &ContextName) -> Result<bool, Failure> {
        if self.content.contexts.remove(name).is_none() {
            return Err(self.unknown(name));
        }
        let was_current = self.current() == Some(name);
        if was_current {
            self.content.current = None;
        }
        Ok(was_current)
    }

    /// Writes the file, mode 0600, at once or not at all.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let failed = |problem: &dyn fmt::Display| {
            let path = self.path.display();
            Failure::new(Exit::Failed, format_args!("cannot write {path}: {problem}"))
        };
        let text = toml::to_string(&self.content).map_err(|error| failed(&error))?;
        write(&self.path, &format!("{HEADER}{text}")).map_err(|error| failed(&error))
    }
}

/// The file that `MCPCTL_CONFIG` names, or `mcpctl/config.toml` in the directory for configuration.
pub(crate) fn file() -> Option<PathBuf> {
    let variable = env::var_os(FILE_VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
    variable.or_else(|| Some(xdg_dir("XDG_CONFIG_HOME", ".config")?.join("mcpctl/config.toml")))
}

/// What is missing in a context: it stands for itself.
fn check(settings: &Settings) -> Result<(), &'static str> {
    if !settings.names_broker() {
        return Err("a context says where its broker is: broker (--broker HOST:PORT) or state \
                    (--state DIR)");
    }
    if settings.ca.is_none() && settings.state.is_none() {
        return Err(
            "a context with an address says whom to trust: ca (--ca FILE), or state (--state \
                    DIR) of a broker that was started with --dev",
        );
    }
    if settings.has_half_a_certificate() {
        return Err("cert and key belong together");
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::other("it is too long for a file of contexts")),
        false => Ok(text),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ContextName {
        text.parse().unwrap()
    }

    fn prod() -> Settings {
        Settings {
            broker: Some("broker.example.org:7447".into()),
            ca: Some("/pki/ca.pem".into()),
            token_file: Some("/pki/ann.token".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["prod", "eu-1", "a.b_c", &"a".repeat(64)] {
            assert!(good.parse::<ContextName>().is_ok(), "{good}");
        }
        for wrong in ["", "a b", "-a", ".a", "a/b", "ü", "a\n", &"a".repeat(65)] {
            assert!(wrong.parse::<ContextName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/config.toml");
        let mut contexts = Contexts::load_from(path.clone()).unwrap();
        assert_eq!((contexts.iter().count(), contexts.current()), (0, None));
        assert!(contexts.set(name("prod"), prod()).unwrap());
        assert!(!contexts.set(name("prod"), prod()).unwrap());
        contexts.choose(Some(&name("prod"))).unwrap();
        contexts.save().unwrap();
        let mut loaded = Contexts::load_from(path.clone()).unwrap();
        assert_eq!(loaded.content, contexts.content);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(loaded.remove(&name("prod")).unwrap());
        loaded.save().unwrap();
        assert_eq!(Contexts::load_from(path).unwrap().content, Content::default());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn paths_in_the_file_are_seen_from_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "contexts.a = { broker = \"b\", ca = \"pki/ca.pem\" }").unwrap();
        let contexts = Contexts::load_from(path.clone()).unwrap();
        let expected = contexts.path().parent().unwrap().join("pki/ca.pem");
        assert_eq!(contexts.get(&name("a")).unwrap().ca.as_deref(), Some(&*expected));
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for (text, named) in [
            ("contexts.a = { broker = 1 }", "broker = 1"),
            ("contexts.a = { brokr = \"b:1\" }", "unknown field `brokr`"),
            ("contexts.\"a b\" = { state = \"d\" }", "is not 1 to 64"),
            ("contexts.a = {}", "a: a context says where its broker is"),
            ("contexts.a = { broker = \"b:1\" }", "--ca FILE"),
            ("contexts.a = { state = \"d\", key = \"k\" }", "belong together"),
            (&"#".repeat(1024 * 1024 + 1), "too long"),
            ("contexts", "line 1"),
        ] {
            fs::write(&path, text).unwrap();
            let failure = Contexts::load_from(path.clone()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            let message = failure.message;
            assert!(message.contains(named) && message.contains("config.toml"), "{message}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_tells_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut contexts = Contexts::load_from(dir.path().join("c.toml")).unwrap();
        assert!(contexts.choose(Some(&name("x"))).unwrap_err().message.contains("there is none"));
        contexts.set(name("prod"), prod()).unwrap();
        for failure in [
            contexts.get(&name("x")).unwrap_err(),
            contexts.remove(&name("x")).unwrap_err(),
            contexts.choose(Some(&name("x"))).unwrap_err(),
        ] {
            assert!(failure.message.contains("there are: prod"), "{}", failure.message);
            assert!(failure.message.contains("mcpctl context set x"), "{}", failure.message);
        }
        contexts.choose(None).unwrap();
    }
}
