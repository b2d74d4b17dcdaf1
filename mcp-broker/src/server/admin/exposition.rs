//! The metrics as text, in the OpenMetrics format, which Prometheus and most others read.

mod experiments;
mod process;

use std::fmt;
use std::time::Duration;

use mcp_telemetry::Exported;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use process::Process;

use super::super::audit;
use super::super::auth;
use super::super::journal::Figures;
use super::super::refused::Refusal;
use super::super::reload;
use crate::broker::{ActionMetrics, Histogram, Metrics, Stats, TaskCounts};

/// Of what [`encode`] returns.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "mcp";

/// A gauge of an action, where it has one.
type Gauge = fn(&ActionMetrics) -> Option<u64>;

/// Writes the metrics, those of the journal, of the audit log, of authentication and of spans where there
/// are any, and those of the process.
pub(super) fn encode(
    metrics: Metrics,
    journal: Option<Figures>,
    audit: Option<audit::Figures>,
    auth: Option<auth::Figures>,
    server: ServerFigures,
    exported: Option<Exported>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(metrics));
    if let Some(journal) = journal {
        registry.register_collector(Box::new(journal));
    }
    if let Some(audit) = audit {
        registry.register_collector(Box::new(audit));
    }
    if let Some(auth) = auth {
        registry.register_collector(Box::new(auth));
    }
    registry.register_collector(Box::new(server));
    if let Some(exported) = exported {
        registry.register_collector(Box::new(Spans(exported)));
    }
    // Named as for any process.
    let mut process = Registry::default();
    process.register_collector(Box::new(Process));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_registry(&mut text, &process)?;
    encode_eof(&mut text)?;
    Ok(text)
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        self.write_actions(&mut to)?;
        self.write_gauges(&mut to)?;
        self.write_counters(&mut to)
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        let help = "Whether durable tasks are taken";
        let gauge = MetricType::Gauge;
        to.0.encode_descriptor("journal_up", help, None, gauge)?
            .encode_gauge(&u64::from(self.is_up))?;
        if let Some(bytes) = self.bytes {
            let help = "Bytes of the journal's segments";
            to.0.encode_descriptor("journal", help, Some(&Unit::Bytes), gauge)?
                .encode_gauge(&bytes)?;
        }
        let (help, unit) = ("Bringing to disk what had gathered", Some(&Unit::Seconds));
        let syncs = to.0.encode_descriptor("journal_sync", help, unit, MetricType::Histogram)?;
        write_histogram(syncs, &self.syncs)?;
        to.counter("journal_records", "Records brought to disk", self.records)
    }
}

/// What is measured of the shell around the core.
#[derive(Debug)]
pub(super) struct ServerFigures {
    /// Connections that were refused, by the key of the limit.
    pub(super) refused: [(&'static str, u64); Refusal::ALL.len()],
    pub(super) reloads: reload::Figures,
    /// Waited awake for packets.
    pub(super) busy_poll: Duration,
}

impl Collector for ServerFigures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        let help = "Connections refused at a limit, by its key";
        let refused = self.refused.iter().map(|(limit, count)| ([("limit", *limit)], *count));
        to.counters("connections_refused", help, refused)?;
        let help = "Waited awake for packets: time that the processor would be idle, but for other threads";
        to.0.encode_descriptor("busy_poll", help, Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&self.busy_poll.as_secs_f64(), None)?;
        let it = &self.reloads;
        let help = "Configurations that were loaded while the broker ran, by what became of them";
        let by_outcome = [("taken", it.taken), ("refused", it.refused)];
        let by_outcome = by_outcome.map(|(outcome, count)| ([("outcome", outcome)], count));
        to.counters("config_reloads", help, by_outcome.into_iter())?;
        for (name, help, unit, value) in [
            (
                "config_last_reload_successful",
                "Whether the configuration was fine when it was last loaded",
                None,
                u64::from(it.error.is_none()),
            ),
            (
                "config_loaded_timestamp",
                "When the configuration that holds was loaded, since 1970",
                Some(&Unit::Seconds),
                it.loaded_s,
            ),
            (
                "config_restart_required",
                "Whether some of it takes effect with the next start only",
                None,
                u64::from(!it.needs_restart.is_empty()),
            ),
        ] {
            to.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

impl Collector for audit::Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        to.counter("audit_records", "Records written to the audit log", self.written)?;
        let help = "Records that the audit log did not take: too many at once, or a failed write";
        to.counter("audit_records_lost", help, self.lost)
    }
}

impl Collector for auth::Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        let help =
            "Whether the keys of tokens can't be read: only who was verified before is let in";
        to.0.encode_descriptor("auth_offline", help, None, MetricType::Gauge)?
            .encode_gauge(&u64::from(self.is_offline))?;
        let help = "Identities that were let in, or stayed, because they were verified before";
        to.counter("auth_offline_admissions", help, self.offline_admissions)
    }
}

#[derive(Debug)]
struct Spans(Exported);

impl Collector for Spans {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        let Exported { sent, lost } = self.0;
        to.counter("spans_exported", "Spans that the collector took", sent)?;
        let help = "Spans that were too many at once, or that the collector did not take";
        to.counter("spans_lost", help, lost)
    }
}

impl Metrics {
    fn write_actions(&self, to: &mut Families<'_>) -> fmt::Result {
        let all = &self.actions;
        let live = || all.iter().map(|it| ([("action", it.action.as_str())], &it.counts));
        let help = "Tasks by how they ended, refused by a full queue included";
        to.counters("tasks_ended", help, live().flat_map(by_outcome))?;
        let help = "Tasks whose outcome is of a step of their action's fallback chain";
        let by_step = all.iter().flat_map(|it| {
            // Most actions have no chain.
            let steps = it.counts.degraded().filter(|(_, count)| *count > 0);
            steps.map(|(step, count)| ([("action", it.action.as_str()), ("step", step)], count))
        });
        to.counters("tasks_degraded", help, by_step)?;
        let help = "From taking a task to delivering its outcome";
        to.histograms("task_duration", help, live().map(|(of, it)| (of, &it.total)))?;
        let help = "In the broker's queue, over all attempts at a task";
        to.histograms("task_queue", help, live().map(|(of, it)| (of, &it.queued)))?;
        let help = "In the handler as its worker reports it, of tasks that it ended";
        to.histograms("task_work", help, live().map(|(of, it)| (of, &it.worked)))?;

        self.write_shadow(to)?;
        self.write_mirrors(to)?;
        self.write_arms(to)?;
        let by_action: [(_, _, _, Gauge); 6] = [
            ("queue_tasks", "Tasks waiting", None, |it| Some(it.queued)),
            ("queue", "Bytes of the tasks waiting", Some(&Unit::Bytes), |it| Some(it.queued_bytes)),
            ("tasks_delayed", "Tasks waiting for their next attempt", None, |it| Some(it.delayed)),
            ("tasks_running", "Tasks at workers", None, |it| Some(it.running)),
            ("workers", "Workers registered", None, |it| it.workers.map(|(all, _)| all)),
            ("workers_ready", "Workers that take tasks", None, |it| it.workers.map(|(_, it)| it)),
        ];
        for (name, help, unit, value) in by_action {
            let values = all.iter().filter_map(|it| Some((it.action.as_str(), value(it)?)));
            to.gauges(name, help, unit, "action", values)?;
        }
        let help = "Workers that take tasks, or would, by the state of their breaker";
        let mut family = to.0.encode_descriptor("breaker_state", help, None, MetricType::Gauge)?;
        for (action, it) in all.iter().filter_map(|it| Some((it.action.as_str(), it.breakers?))) {
            let states = [("closed", it.closed), ("half_open", it.half_open), ("open", it.open)];
            for (state, workers) in states {
                family
                    .encode_family(&[("action", action), ("state", state)])?
                    .encode_gauge(&workers)?;
            }
        }
        let help = "Since the longest waiting task was taken, 0 when none waits";
        let oldest = all.iter().filter_map(|it| Some((it.action.as_str(), it.oldest_us?)));
        let oldest = oldest.map(|(action, us)| (action, in_seconds(us)));
        to.gauges("queue_oldest_age", help, Some(&Unit::Seconds), "action", oldest)
    }

    fn write_gauges(&self, to: &mut Families<'_>) -> fmt::Result {
        let stats = &self.stats;
        let agents = [("online", stats.agents_online), ("lost", self.agents_lost_now)];
        let help = "Registered workers, by whether they are there";
        to.gauges("agents", help, None, "presence", agents.into_iter())?;
        for (name, help, value) in [
            ("worker_slots", "Slots of the workers online", self.slots),
            (
                "attempts_in_flight",
                "Attempts that workers have, parked ones included",
                stats.in_flight,
            ),
            ("sessions", "Client sessions, detached ones included", stats.sessions),
            ("streams", "Results on their way in parts", stats.streams),
            ("stream_kept_bytes", "Parts of results kept for their readers", stats.stream_bytes),
            ("uploads", "Inputs on their way in parts", stats.uploads),
            ("upload_bytes", "Set aside for parts of inputs", stats.upload_bytes),
            ("connections", "Connections", stats.connections),
            ("durable_tasks", "Durable tasks without an outcome", stats.durable.in_flight),
            ("durable_outcomes", "Kept outcomes of durable tasks", stats.durable.ended),
            ("durable_bytes", "Durable tasks and their kept outcomes", stats.durable.bytes),
            ("dead_letters", "Dead letters", stats.durable.dead_letters),
        ] {
            to.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn write_counters(&self, to: &mut Families<'_>) -> fmt::Result {
        // All of them, so that a new one is not forgotten.
        let Stats {
            accepted,
            ok: _,
            failed: _,
            expired: _,
            cancelled: _,
            rejected: _,
            degraded: _,
            shed,
            duplicates,
            joined,
            attempts,
            chunks,
            input_chunks,
            nacked,
            put_off,
            redispatched,
            retried,
            retries_refused,
            hedges,
            hedges_won,
            hedges_refused,
            timed_out,
            late_results,
            refused_results,
            leaked,
            cancels_unconfirmed,
            poisoned,
            breakers_opened,
            workers_ejected,
            agents_lost,
            agents_resumed,
            sessions_resumed,
            peers_refused,
            queued: _,
            delayed: _,
            running: _,
            in_flight: _,
            agents_online: _,
            sessions: _,
            streams: _,
            stream_bytes: _,
            uploads: _,
            upload_bytes: _,
            connections: _,
            durable: _,
            shadow,
        } = &self.stats;
        for (name, help, value) in [
            ("tasks_accepted", "Tasks taken", accepted),
            ("shadow_tasks_accepted", "Shadow tasks taken", &shadow.accepted),
            ("tasks_shed", "Refusals by actions that are not core, to keep room", shed),
            ("tasks_duplicate", "SENDs of a task that was known already", duplicates),
            ("tasks_joined", "SENDs that joined a task in flight", joined),
            ("attempts", "Attempts routed to workers", attempts),
            ("attempts_nacked", "Attempts that workers handed back", nacked),
            ("attempts_put_off", "Attempts handed back to be tried again later", put_off),
            ("attempts_redispatched", "Attempts after a task's first", redispatched),
            ("chunks", "Parts of results that workers sent", chunks),
            ("input_chunks", "Parts of inputs that clients sent", input_chunks),
            ("attempts_timed_out", "Attempts that gave no sign of life", timed_out),
            ("retries", "Failures and time-outs that were followed by another attempt", retried),
            ("retries_refused", "Those that were not: no retry budget left", retries_refused),
            ("hedges", "Attempts that began beside a slow one", hedges),
            ("hedges_won", "Those of them that did their task first", hedges_won),
            ("hedges_refused", "Slow attempts without one: no slot, or no budget", hedges_refused),
            ("attempts_leaked", "Attempts that workers no longer knew", leaked),
            ("results_late", "RESULTs of tasks that had ended or gone elsewhere", late_results),
            ("results_refused", "RESULTs and NACKs not of the attempt's holder", refused_results),
            ("cancels_unconfirmed", "CANCELs not confirmed in time", cancels_unconfirmed),
            ("tasks_poisoned", "Tasks ended as too many workers failed with them", poisoned),
            ("breaker_opened", "Times that a worker's breaker opened", breakers_opened),
            ("workers_ejected", "Times that a worker was left out as slow", workers_ejected),
            ("agents_lost", "Workers lost", agents_lost),
            ("agents_resumed", "Lost workers that came back", agents_resumed),
            ("sessions_resumed", "Client sessions resumed", sessions_resumed),
            ("peers_refused", "Connections closed for what their peers did", peers_refused),
        ] {
            to.counter(name, help, *value)?;
        }
        let help = "SENDs refused before there was a task, by error code";
        let refused = self.refused.iter().map(|(code, count)| ([("code", code.name())], *count));
        to.counters("sends_refused", help, refused)
    }
}

/// Writes families of metrics.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauges<'v, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Iterator<Item = (&'v str, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (of, value) in values {
            family.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            family.encode_family(&of)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn histograms<'v, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, &'v Histogram)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (of, it) in values {
            write_histogram(family.encode_family(&of)?, it)?;
        }
        Ok(())
    }
}

fn write_histogram(mut to: MetricEncoder<'_>, it: &Histogram) -> fmt::Result {
    let buckets: Vec<_> = it
        .buckets()
        .map(|(bound_us, count)| (bound_us.map_or(f64::INFINITY, in_seconds), count))
        .collect();
    to.encode_histogram::<NoLabelSet>(in_seconds(it.sum_us()), it.count(), &buckets, None)
}

/// How the tasks of some labels ended, with the outcome added to the labels.
fn by_outcome<'a, const N: usize>(
    (of, counts): ([(&'a str, &'a str); N], &'a TaskCounts),
) -> impl Iterator<Item = (Vec<(&'a str, &'a str)>, u64)> {
    counts.ended().map(move |(outcome, count)| {
        let labels = of.into_iter().chain([("outcome", outcome.name())]).collect();
        (labels, count)
    })
}

fn in_seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
