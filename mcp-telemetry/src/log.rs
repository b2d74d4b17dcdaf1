//! Log lines as JSON: an object a line, for collectors.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, reload};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// As [`JsonLines`].
    Json,
}

impl Format {
    /// Writes the log of this process to stderr from now on.
    ///
    /// # Panics
    /// When something else takes it already.
    pub fn start(self, service_name: &'static str, filter: EnvFilter) -> Level {
        let to = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        match self {
            Format::Text => {
                let to = to.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
                let level = Level::of(to.reload_handle());
                to.init();
                level
            }
            Format::Json => {
                let to = to.event_format(JsonLines::new(service_name)).with_filter_reloading();
                let level = Level::of(to.reload_handle());
                to.init();
                level
            }
        }
    }
}

/// What is logged of a process whose log was [started](Format::start).
pub struct Level(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl Level {
    fn of<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> Self {
        // Only a log that is there no more can't be changed.
        Self(Box::new(move |filter| drop(handle.reload(filter))))
    }

    /// Something else from now on.
    pub fn set(&self, filter: EnvFilter) {
        (self.0)(filter);
    }
}

impl Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Level")
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("is neither text nor json".to_owned()),
        }
    }
}

/// Each event as an object: `timestamp` (ms since 1970, UTC), `level` (`"INFO"`), `service_name`,
/// `target`, `message`, and the event's own fields; `trace_id` is among them where it is about a
/// task. Whatever is in a field, there is no line break within a line.
#[derive(Debug, Clone, Copy)]
pub struct JsonLines {
    service_name: &'static str,
}

impl JsonLines {
    /// Lines of this service.
    pub fn new(service_name: &'static str) -> Self {
        Self { service_name }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let line = self.line(at_ms as u64, event, fields).map_err(|_| fmt::Error)?;
        writeln!(to, "{line}")
    }
}

impl JsonLines {
    fn line(&self, at_ms: u64, event: &Event<'_>, fields: Fields) -> serde_json::Result<String> {
        let mut line = Vec::new();
        let mut to = serde_json::Serializer::new(&mut line);
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("timestamp", &at_ms)?;
        map.serialize_entry("level", event.metadata().level().as_str())?;
        map.serialize_entry("service_name", self.service_name)?;
        map.serialize_entry("target", event.metadata().target())?;
        for (name, value) in &fields.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()?;
        // What serde_json writes is UTF-8.
        Ok(String::from_utf8(line).unwrap_or_default())
    }
}

/// An event's fields, in its order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_event_is_one_object_on_one_line() {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines::new("mcp-broker"))
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
            tracing::warn!(trace_id, agents = 3, share = 0.5, is_it = true, "a \"b\"\nc {}", 'd');
            tracing::info!(peer = %"1.2.3.4:5", none = Option::<u64>::None, "plain");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0]["timestamp"].as_u64().unwrap() > 1_600_000_000_000);
        for (name, value) in [
            ("level", Value::from("WARN")),
            ("service_name", "mcp-broker".into()),
            ("target", module_path!().into()),
            ("message", "a \"b\"\nc d".into()),
            ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
            ("agents", 3.into()),
            ("share", 0.5.into()),
            ("is_it", true.into()),
        ] {
            assert_eq!(lines[0][name], value, "{name}");
        }
        assert_eq!(lines[1]["peer"], "1.2.3.4:5");
        assert_eq!(lines[1].get("none"), None);
    }
}
