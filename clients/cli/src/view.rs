//! Small views: cluster, counters, errors, configuration.

use landfall::{Client, api};
use serde::Serialize;

use crate::config::{Config, Settings, Shown};
use crate::error::{Outcome, Tried};
use crate::out::{Out, grouped, human_bytes, human_ns, note, table};
use crate::words::Format;

pub fn cluster(settings: &Settings, client: &Client) -> Outcome {
    let cluster = client.cluster().tried(|| "cannot describe the cluster".into())?;
    let mut out = Out::new();
    if settings.output.format == Format::Json {
        // Control's own document, which has its schema version.
        out.json_line(&cluster)?;
        return out.flush();
    }
    let pool = &cluster.pool;
    out.line(format_args!("epoch     {}", cluster.epoch))?;
    out.line(format_args!("control   pid {}", cluster.pid))?;
    out.line(format_args!("pool      {} ({})", pool.path, pool.uuid))?;
    out.line(format_args!(
        "          {}, {} of {} segments of {} free, {}",
        human_bytes(pool.bytes as f64),
        pool.segments_free,
        pool.segments,
        human_bytes(pool.segment_bytes as f64),
        pool.coherence
    ))?;
    if pool.segments_lost > 0 {
        out.line(format_args!(
            "          {} segments are lost: their memory cannot be read (landfall errors)",
            pool.segments_lost
        ))?;
    }
    out.line(format_args!(
        "          batches to {}, {} sessions",
        human_bytes(pool.batch_bytes_max.into()),
        grouped(pool.sessions)
    ))?;
    out.line("")?;
    let heading = ["broker", "state", "pid", "heartbeat", "epoch", "tcp", "unix", "verbs"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(cluster.brokers.iter().map(|broker| {
        vec![
            broker.broker.to_string(),
            broker.state.clone(),
            broker.pid.to_string(),
            broker.heartbeat_age_ms.map_or_else(|| "none seen".into(), |ms| format!("{ms} ms ago")),
            broker.epoch_seen.to_string(),
            broker.tcp.clone(),
            broker.unix.clone(),
            broker.verbs.clone(),
        ]
    }));
    out.bytes(table(&rows).as_bytes())?;
    out.flush()
}

#[derive(Serialize)]
struct Processes<'a> {
    processes: &'a [api::ProcessCounters],
}

pub fn counters(all: bool, settings: &Settings, client: &Client) -> Outcome {
    let processes = client.counters().tried(|| "cannot read the counters".into())?;
    let mut out = Out::new();
    if settings.output.format == Format::Json {
        return out.document(&Processes { processes: &processes });
    }
    let mut rows = vec![["process", "counter", "value"].map(str::to_owned).to_vec()];
    for process in &processes {
        for (name, value) in process.counters.iter().filter(|(_, value)| all || **value > 0) {
            rows.push(vec![process.process.clone(), name.clone(), grouped(*value)]);
        }
    }
    out.bytes(table(&rows).as_bytes())?;
    let heading = ["process", "latency", "count", "mean", "p50 below", "p99 below"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for process in &processes {
        for (stage, latency) in process.latencies.iter().filter(|(_, l)| all || l.count > 0) {
            rows.push(vec![
                process.process.clone(),
                stage.clone(),
                grouped(latency.count),
                human_ns(latency.sum_ns / latency.count.max(1)),
                human_ns(below(latency, 0.5)),
                human_ns(below(latency, 0.99)),
            ]);
        }
    }
    if rows.len() > 1 {
        out.line("")?;
        out.bytes(table(&rows).as_bytes())?;
    }
    out.flush()
}

/// A bound that this share of a histogram's values lies below: the end of the bucket they reach.
pub fn below(latency: &api::Latency, share: f64) -> u64 {
    let total: u64 = latency.buckets.iter().sum();
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (bucket, count) in latency.buckets.iter().enumerate() {
        seen += count;
        if total > 0 && seen >= wanted.max(1) {
            return 1_u64.checked_shl(bucket as u32 + 1).unwrap_or(u64::MAX);
        }
    }
    0
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: &'a [api::ProcessError],
}

pub fn errors(all: bool, settings: &Settings, client: &Client) -> Outcome {
    let mut errors = client.errors().tried(|| "cannot read the errors".into())?;
    let mut out = Out::new();
    if settings.output.format == Format::Json {
        return out.document(&Errors { errors: &errors });
    }
    let is_note = |error: &api::ProcessError| error.level == "note";
    let notes = errors.iter().filter(|error| is_note(error)).count();
    if !all {
        errors.retain(|error| !is_note(error));
    }
    if notes > 0 && !all {
        note(format_args!("{notes} notes of what is as it should be are left out (--all)"));
    }
    if errors.is_empty() {
        note("no process has noted an error");
        return Ok(());
    }
    let mut rows = vec![["process", "count", "last", "level", "error"].map(str::to_owned).to_vec()];
    rows.extend(errors.iter().map(|error| {
        vec![
            error.process.clone(),
            grouped(error.count),
            format!("@{}", error.last_ns),
            error.level.clone(),
            error.text.clone(),
        ]
    }));
    out.bytes(table(&rows).as_bytes())?;
    out.flush()
}

#[derive(Serialize)]
struct Shows {
    file: Option<String>,
    settings: Vec<Shown>,
}

pub fn config(origin: bool, config: &Config) -> Outcome {
    let settings = config.shown();
    let mut out = Out::new();
    if config.settings.output.format == Format::Json {
        let file = config.file.as_ref().map(|path| path.display().to_string());
        return out.document(&Shows { file, settings });
    }
    let lines: Vec<String> =
        settings.iter().map(|shown| format!("{} = {}", shown.key, shown.value)).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    for (line, shown) in lines.iter().zip(&settings) {
        if origin {
            out.line(format_args!("{line:<width$}  # {}", shown.origin))?;
        } else {
            out.line(line)?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_of_a_histogram_is_the_end_of_its_bucket() {
        let mut latency = api::Latency { count: 100, sum_ns: 0, buckets: vec![0; 40] };
        assert_eq!(below(&latency, 0.5), 0, "nothing counted");
        latency.buckets[10] = 98;
        latency.buckets[20] = 2;
        assert_eq!(below(&latency, 0.5), 2048);
        assert_eq!(below(&latency, 0.98), 2048);
        assert_eq!(below(&latency, 0.99), 2 << 20);
        assert_eq!(below(&latency, 1.0), 2 << 20);
    }
}
