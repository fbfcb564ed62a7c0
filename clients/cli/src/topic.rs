//! `landfall topic`.

use landfall::Client;
use landfall::api::{self, TopicSpec};
use landfall_layout::topic::check_name;
use serde::Serialize;

use crate::args::{Topic, TopicCreate};
use crate::config::Settings;
use crate::error::{Failure, Outcome, Tried};
use crate::out::{Out, grouped, human_bytes, table};
use crate::starting;
use crate::units::{Size, Time};
use crate::words::Format;

pub fn run(command: &Topic, settings: &Settings, client: &Client) -> Outcome {
    let format = settings.output.format;
    match command {
        Topic::Create(args) => create(args, settings, client),
        Topic::Ls(_) => list(format, client),
        Topic::Describe(args) => {
            named(&args.name)?;
            let topic = client.topic(&args.name).tried(|| cannot("describe", &args.name));
            describe(&topic.map_err(|f| f.next("landfall topic ls"))?, format)
        }
        Topic::Rm(args) => remove(&args.names, format, client),
    }
}

/// Refuses a name that no topic can have, before anything is sent.
pub fn named(name: &str) -> Outcome {
    check_name(name).map_err(|error| Failure::usage(format!("{name:?} is no topic's name"), error))
}

fn cannot(what: &str, name: &str) -> String {
    format!("cannot {what} topic {name}")
}

/// Refuses what 0 would be taken for where it stands for no bound: who wants none leaves the flag
/// out, and who wants to keep nothing is not given everything.
fn check_bounds(args: &TopicCreate) -> Outcome {
    let bytes = |size: Option<Size>| size.is_some_and(|size| size.0 == 0);
    let time = |time: Option<Time>| time.is_some_and(|time| time.0.is_zero());
    let flags = [
        (
            bytes(args.retention_bytes),
            "--retention-bytes",
            "as many bytes as the pool has room for",
        ),
        (time(args.retention), "--retention", "batches for as long as the pool has room"),
        (bytes(args.disk_bytes), "--disk-bytes", "all on disk"),
        (time(args.disk_time), "--disk-time", "batches on disk for ever"),
    ];
    for (is_zero, flag, kept) in flags {
        if is_zero {
            let why = format!("leave {flag} out to keep {kept}");
            return Err(Failure::usage(format!("{flag} 0 is not possible"), why));
        }
    }
    Ok(())
}

fn create(args: &TopicCreate, settings: &Settings, client: &Client) -> Outcome {
    named(&args.name)?;
    check_bounds(args)?;
    let spec = TopicSpec {
        ring_slots: args.ring_slots,
        retention_bytes: args.retention_bytes.map(|size| size.0),
        retention_ms: args.retention.map(Time::as_ms),
        keep: args.keep.then_some(true),
        check_ingest: args.check_ingest.then_some(true),
        replicas: Some(settings.topic.replicas),
        durability: args.durability.map(|durability| durability.to_string()),
        disk_bytes: args.disk_bytes.map(|size| size.0),
        disk_ms: args.disk_time.map(Time::as_ms),
        session_lease_ms: args.session_lease.map(Time::as_ms),
        ..TopicSpec::new(args.name.clone(), settings.topic.order.into())
    };
    let topic = starting::when_brokers_came(settings.control.wait, || client.create_topic(&spec));
    let topic = topic.tried(|| cannot("create", &args.name));
    describe(&topic.map_err(|f| f.next("landfall topic create --help"))?, settings.output.format)
}

#[derive(Serialize)]
struct Topics<'a> {
    topics: &'a [api::Topic],
}

fn list(format: Format, client: &Client) -> Outcome {
    let topics = client.topics().tried(|| "cannot list topics".into())?;
    let mut out = Out::new();
    if format == Format::Json {
        return out.document(&Topics { topics: &topics });
    }
    let heading =
        ["name", "order", "messages", "batches", "bytes", "oldest in memory", "next", "segments"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(topics.iter().map(|topic| {
        vec![
            topic.name.clone(),
            topic.order.clone(),
            grouped(topic.messages),
            grouped(topic.batches),
            human_bytes(topic.bytes as f64),
            grouped(topic.oldest_position),
            grouped(topic.next_position),
            grouped(topic.segments),
        ]
    }));
    out.bytes(table(&rows).as_bytes())?;
    out.flush()
}

fn describe(topic: &api::Topic, format: Format) -> Outcome {
    let mut out = Out::new();
    if format == Format::Json {
        return out.document(topic);
    }
    let or = |value: u64, shown: String, none: &str| {
        if value == 0 { none.to_owned() } else { shown }
    };
    let ms = |ms: u64| Time(std::time::Duration::from_millis(ms)).to_string();
    let lines = [
        ("name", topic.name.clone()),
        ("id", topic.id.to_string()),
        ("order", topic.order.clone()),
        ("ring slots", grouped(topic.ring_slots.into())),
        (
            "retention bytes",
            or(
                topic.retention_bytes,
                Size(topic.retention_bytes).to_string(),
                "as the pool allows",
            ),
        ),
        ("retention", or(topic.retention_ms, ms(topic.retention_ms), "as the pool allows")),
        ("keep", topic.keep.to_string()),
        ("check ingest", topic.check_ingest.to_string()),
        ("replicas", topic.replicas.to_string()),
        ("durability", topic.durability.clone()),
        ("disk bytes", or(topic.disk_bytes, Size(topic.disk_bytes).to_string(), "all")),
        ("disk time", or(topic.disk_ms, ms(topic.disk_ms), "for ever")),
        ("session lease", ms(topic.session_lease_ms)),
        ("created", format!("@{}", topic.created_ns)),
        ("messages", grouped(topic.messages)),
        ("batches", grouped(topic.batches)),
        ("bytes", grouped(topic.bytes)),
        ("oldest in memory", oldest(topic)),
        ("next position", grouped(topic.next_position)),
        ("segments", grouped(topic.segments)),
    ];
    for (name, value) in lines {
        out.line(format_args!("{name:<17}{value}"))?;
    }
    if !topic.replicas_state.is_empty() {
        out.bytes(b"\n")?;
        out.bytes(table(&replicas(topic)).as_bytes())?;
    }
    out.flush()
}

/// The oldest position that memory has: what is older is read from disk where there are copies.
fn oldest(topic: &api::Topic) -> String {
    let position = grouped(topic.oldest_position);
    match topic.oldest_position > 0 && topic.replicas > 1 {
        true => format!("{position} (older positions that disks have are read from there)"),
        false => position,
    }
}

/// A row for each copy on a disk: of which broker's batches, where, and how far it is.
fn replicas(topic: &api::Topic) -> Vec<Vec<String>> {
    let heading =
        ["batches of", "replica", "on broker", "home", "durable below", "written below", "state"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(topic.replicas_state.iter().map(|replica| {
        let state = match replica.errno {
            0 => replica.state.clone(),
            errno => format!("{} (error {errno})", replica.state),
        };
        vec![
            format!("broker {}", replica.source),
            replica.replica.to_string(),
            replica.broker.to_string(),
            replica.home.to_string(),
            grouped(replica.durable),
            grouped(replica.written),
            state,
        ]
    }));
    rows
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: &'a [String],
}

fn remove(names: &[String], format: Format, client: &Client) -> Outcome {
    for name in names {
        named(name)?;
    }
    for name in names {
        let deleted = client.delete_topic(name).tried(|| cannot("delete", name));
        deleted.map_err(|f| f.next("landfall topic ls"))?;
    }
    let mut out = Out::new();
    match format {
        Format::Json => out.document(&Deleted { deleted: names }),
        Format::Table => {
            for name in names {
                out.line(format_args!("deleted {name}"))?;
            }
            out.flush()
        }
    }
}
