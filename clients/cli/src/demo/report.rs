//! What the demo found, and the verdict.

use std::collections::HashMap;
use std::path::Path;

use hdrhistogram::Histogram;
use landfall::api::ProcessCounters;
use serde::Serialize;

use super::files::Files;
use super::read::Rebuilt;
use super::send::Print;
use super::{BROKERS, Run};
use crate::bench::{Machine, sum_of};
use crate::config::Settings;
use crate::error::{Failure, Outcome};
use crate::out::{Out, grouped, human_bytes, human_ns, table};
use crate::view::below;
use crate::words::Format;

/// Failures that are written out.
const SHOWN: usize = 20;

#[derive(Serialize)]
pub struct Report {
    demo: String,
    machine: Machine,
    pass: bool,
    files: usize,
    files_skipped: usize,
    bytes: u64,
    messages: u64,
    batches: u64,
    seconds: f64,
    bytes_per_second: f64,
    messages_per_second: f64,
    pool_bytes: u64,
    brokers: usize,
    publishers: Vec<String>,
    subscribers: Vec<String>,
    resubmitted_batches: u64,
    order_sha256: String,
    latencies: Vec<Stage>,
    failures: Vec<String>,
}

#[derive(Serialize)]
struct Stage {
    stage: String,
    from: &'static str,
    count: u64,
    p50_ns: u64,
    p99_ns: u64,
    max_ns: Option<u64>,
}

impl Report {
    pub(super) fn new(
        dir: &Path,
        files: &Files,
        run: &Run,
        counters: &[ProcessCounters],
        settings: &Settings,
    ) -> Self {
        let sent: HashMap<usize, Print> =
            run.sent.iter().flat_map(|sent| sent.files.iter().copied()).collect();
        let bytes: u64 = sent.values().map(|print| print.bytes).sum();
        let messages: u64 = run.sent.iter().map(|sent| sent.messages).sum();
        let seconds = run.time.as_secs_f64().max(1e-9);
        let failures = failures(files, run, &sent, messages);
        Self {
            demo: dir.display().to_string(),
            machine: Machine::here(),
            pass: failures.is_empty(),
            files: sent.len(),
            files_skipped: files.skipped + run.sent.iter().map(|s| s.skipped).sum::<usize>(),
            bytes,
            messages,
            batches: run.audit.batches,
            seconds,
            bytes_per_second: bytes as f64 / seconds,
            messages_per_second: messages as f64 / seconds,
            pool_bytes: settings.demo.pool_bytes.0,
            brokers: BROKERS,
            publishers: run.sent.iter().map(|sent| sent.transport.to_string()).collect(),
            subscribers: run.rebuilt.iter().map(|seen| seen.transport.to_string()).collect(),
            resubmitted_batches: run.sent.iter().map(|sent| sent.resubmitted).sum(),
            order_sha256: run.rebuilt.first().map(|seen| hex(&seen.order)).unwrap_or_default(),
            latencies: latencies(run, counters),
            failures,
        }
    }

    pub(super) fn print(&self, format: Format) -> Outcome {
        let mut out = Out::new();
        if format == Format::Json {
            return out.document(self);
        }
        out.line(format_args!("machine      {}", self.machine))?;
        out.line(format_args!(
            "system       {} brokers, pool {}, order strong",
            self.brokers,
            human_bytes(self.pool_bytes as f64)
        ))?;
        out.line(format_args!("publishers   {}", self.publishers.join(", ")))?;
        out.line(format_args!("subscribers  {}", self.subscribers.join(", ")))?;
        out.line(format_args!(
            "files        {} under {}, {}; {} skipped",
            grouped(self.files as u64),
            self.demo,
            human_bytes(self.bytes as f64),
            self.files_skipped
        ))?;
        out.line(format_args!(
            "throughput   {}/s, {} messages/s: {} messages in {} batches, {:.3} s from the first \
             read of the disk to the last hash",
            human_bytes(self.bytes_per_second),
            grouped(self.messages_per_second as u64),
            grouped(self.messages),
            grouped(self.batches),
            self.seconds
        ))?;
        let mut rows =
            vec![["latency", "from", "count", "p50", "p99", "max"].map(str::to_owned).to_vec()];
        rows.extend(self.latencies.iter().map(|stage| {
            vec![
                stage.stage.clone(),
                stage.from.to_owned(),
                grouped(stage.count),
                human_ns(stage.p50_ns),
                human_ns(stage.p99_ns),
                stage.max_ns.map(human_ns).unwrap_or_else(|| "-".into()),
            ]
        }));
        out.bytes(table(&rows).as_bytes())?;
        out.line(format_args!("order        sha256 {} at both subscribers", self.order_sha256))?;
        for failure in self.failures.iter().take(SHOWN) {
            out.line(format_args!("failed       {failure}"))?;
        }
        if self.failures.len() > SHOWN {
            out.line(format_args!("             and {} more", self.failures.len() - SHOWN))?;
        }
        out.line(if self.pass { "PASS" } else { "FAIL" })?;
        out.flush()
    }

    /// PASS is success.
    pub(super) fn verdict(&self) -> Outcome {
        match self.failures.first() {
            None => Ok(()),
            Some(first) => {
                let count = self.failures.len();
                Err(Failure::failed(format!("the demo failed in {count} points"), first))
            }
        }
    }
}

/// Everything that is not as it has to be.
fn failures(files: &Files, run: &Run, sent: &HashMap<usize, Print>, messages: u64) -> Vec<String> {
    let mut failures = Vec::new();
    for sent in run.sent.iter().filter(|sent| sent.acked != sent.messages) {
        failures.push(format!(
            "a {} publisher got receipts for {} of its {} messages",
            sent.transport, sent.acked, sent.messages
        ));
    }
    for seen in &run.rebuilt {
        let who = format!("the {} subscriber", seen.transport);
        if seen.messages != messages || seen.missed > 0 {
            failures.push(format!(
                "{who} saw {} of {messages} messages and missed {}",
                seen.messages, seen.missed
            ));
        }
        if seen.wrong_total > 0 {
            let total = seen.wrong_total;
            failures.push(format!("{who} saw {total} wrong messages: {}", seen.wrong.join("; ")));
        }
        failures.extend(contents(&who, files, sent, seen));
    }
    if let [first, rest @ ..] = &run.rebuilt[..]
        && rest.iter().any(|seen| seen.order != first.order)
    {
        failures.push("the two subscribers saw different orders".into());
    }
    if !run.audit.ok {
        failures.push(format!("the audit says: {}", run.audit));
    }
    failures
}

/// Files whose bytes are not what was read from the disk.
fn contents<'a>(
    who: &'a str,
    files: &'a Files,
    sent: &'a HashMap<usize, Print>,
    seen: &'a Rebuilt,
) -> impl Iterator<Item = String> {
    let name = |number: usize| {
        files.list.get(number).map_or_else(String::new, |path| path.display().to_string())
    };
    let other = sent.iter().filter_map(move |(number, print)| match seen.files.get(number) {
        Some(found) if found == print => None,
        Some(found) => Some(format!(
            "{who} has {} bytes with sha256 {} of {}, and {} with {} were published",
            found.bytes,
            hex(&found.sha256),
            name(*number),
            print.bytes,
            hex(&print.sha256)
        )),
        None => Some(format!("{who} did not get {}", name(*number))),
    });
    let strange = seen.files.keys().filter(|number| !sent.contains_key(number));
    other.chain(strange.map(move |number| format!("{who} got file {number}, which nobody sent")))
}

fn latencies(run: &Run, counters: &[ProcessCounters]) -> Vec<Stage> {
    let own = |stage: String, from, histogram: &Histogram<u64>| Stage {
        stage,
        from,
        count: histogram.len(),
        p50_ns: histogram.value_at_quantile(0.5),
        p99_ns: histogram.value_at_quantile(0.99),
        max_ns: Some(histogram.max()),
    };
    let mut stages = Vec::new();
    if let Some(first) = run.rebuilt.first() {
        // Both subscribers see the same times of publishers and brokers.
        stages.push(own("sealed".into(), "published", &first.times.sealed));
        stages.push(own("landed".into(), "sealed", &first.times.landed));
    }
    let ordered = sum_of(counters, "landed_to_ordered");
    stages.push(Stage {
        stage: "ordered".into(),
        from: "landed",
        count: ordered.count,
        p50_ns: below(&ordered, 0.5),
        p99_ns: below(&ordered, 0.99),
        max_ns: None,
    });
    for seen in &run.rebuilt {
        let stage = format!("delivered, {}", seen.transport);
        stages.push(own(stage, "landed", &seen.times.delivered));
    }
    stages
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_hexadecimal_digits() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }
}
