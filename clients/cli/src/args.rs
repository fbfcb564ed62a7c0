//! The command line.

pub mod bench;
pub mod doctor;
pub mod system;
pub mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use landfall_layout::limits::REPLICAS_MAX;
use landfall_layout::topic::Durability;

use crate::config::Flags;
use crate::units::{Size, Start, Time};
use crate::words;

const EXIT: &str = "\
Exit status:
  0  done
  1  failed
  2  the command line or the configuration is wrong
  3  nobody answers at the control address

Files and environment:
  Settings come from a TOML file, then LANDFALL__SECTION__KEY, then flags. The file is the one that
  --config or LANDFALL_CONFIG names, else the first of ./landfall.toml,
  ~/.config/landfall/landfall.toml and /etc/landfall/landfall.toml.
  LANDFALL_CONTROL names the control address, LANDFALL_BIN_DIR the folder of landfall-control and
  landfall-broker. NO_COLOR turns colours off.

Example:
  landfall up &
  landfall topic create greetings
  echo hello | landfall publish greetings
  landfall subscribe greetings --until-end";

/// Publish and subscribe through one totally ordered shared log.
///
/// Data goes to stdout and everything else to stderr, so that any command can stand in a pipe.
#[derive(Parser, Debug)]
#[command(name = "landfall", version, after_long_help = EXIT, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Control's address: http://HOST:PORT, HOST:PORT, unix:PATH or unix:@NAME, or several with
    /// commas between them, of which the one that leads is asked; LANDFALL_CONTROL is the same
    /// [default: http://127.0.0.1:7400]
    #[arg(long, global = true, value_name = "ADDR", display_order = 100)]
    pub control: Option<String>,
    /// Longest wait for a control that is just being started, or takes over [default: 10s]
    #[arg(long, global = true, value_name = "TIME", display_order = 100)]
    pub wait: Option<Time>,
    /// Configuration file, instead of the usual places; LANDFALL_CONFIG is the same
    #[arg(long, global = true, value_name = "FILE", display_order = 101)]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a system on this machine: control and its brokers
    Up(system::Up),
    /// Make, list, describe and remove topics
    #[command(subcommand)]
    Topic(Topic),
    /// Forget brokers that are not wanted any more
    #[command(subcommand)]
    Broker(Broker),
    /// Publish a message a line
    Publish(Publish),
    /// Read messages in their order
    Subscribe(Subscribe),
    /// Measure throughput or latency beside the limit of this machine
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run the whole system once and check that nothing was lost, changed or reordered
    Demo(system::Demo),
    /// Say what this machine can do and what stands in the way
    Doctor(doctor::Doctor),
    /// Say what is wrong with a pool or with replicas on disk, and where
    Verify(verify::Verify),
    /// Mend what follows from the rest of a pool or of replicas, and say what is lost
    Recover(verify::Recover),
    /// Show the pool, the brokers and the epoch
    #[command(after_long_help = "Example:\n  landfall cluster -o json | jq .pool.segments_free")]
    Cluster(View),
    /// Show every process's counters
    Counters(Counters),
    /// Show every process's distinct errors
    Errors(Errors),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// A view that is printed.
#[derive(Args, Debug)]
pub struct View {
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<words::Format>,
}

/// `landfall counters`.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  landfall counters --all -o json")]
pub struct Counters {
    /// Show counters that are 0 as well
    #[arg(long)]
    pub all: bool,
    /// How to print it
    #[command(flatten)]
    pub view: View,
}

/// `landfall errors`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
An error is shown until newer ones take its place, also by the next control. Notes are of what is as
it should be: with -o json each entry has a level, error or note.

Example:
  landfall errors -o json | jq '.errors[] | select(.level == \"error\").text'")]
pub struct Errors {
    /// Show notes of what is as it should be as well
    #[arg(long)]
    pub all: bool,
    /// How to print them
    #[command(flatten)]
    pub view: View,
}

/// `landfall topic`.
#[derive(Subcommand, Debug)]
pub enum Topic {
    /// Make a topic
    Create(TopicCreate),
    /// List all topics
    #[command(after_long_help = "Example:\n  landfall topic ls -o json | jq '.topics[].name'")]
    Ls(View),
    /// Describe a topic
    Describe(TopicDescribe),
    /// Delete topics and everything in them
    Rm(TopicRm),
}

/// `landfall topic create`.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  landfall topic create trades --order strong \
    --retention-bytes 512M")]
pub struct TopicCreate {
    /// Its name: 1 to 120 letters a-z A-Z, digits, '.', '_' and '-'
    pub name: String,
    /// What order it promises [default: total]
    #[arg(long, value_enum)]
    pub order: Option<words::Order>,
    /// Slots of each broker's ring, a power of two
    #[arg(long, value_name = "N")]
    pub ring_slots: Option<u32>,
    /// Bytes of batches to keep at least [default: as many as the pool has room for]. Where others
    /// need room, they are kept in at most twice the segments that they fill, or half of the pool
    #[arg(long, value_name = "SIZE")]
    pub retention_bytes: Option<Size>,
    /// How long to keep a batch at least [default: as long as the pool has room]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<Time>,
    /// Keep everything: a full pool then stops publishers
    #[arg(long)]
    pub keep: bool,
    /// Brokers check each payload's checksum before it is ordered
    #[arg(long)]
    pub check_ingest: bool,
    /// Copies of each batch, the pool counted as the first [default: 1]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u8).range(1..=REPLICAS_MAX as i64))]
    pub replicas: Option<u8>,
    /// When copies on disk are synced: sync, each group at once; window, each 64 MiB or 250 ms, so
    /// that receipts say replicated and never durable [default: sync]
    #[arg(long, value_name = "sync|window")]
    pub durability: Option<Durability>,
    /// Bytes of batches to keep on disk at least, in each copy of what a broker lands [default:
    /// all]
    #[arg(long, value_name = "SIZE")]
    pub disk_bytes: Option<Size>,
    /// How long to keep a batch on disk at least [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub disk_time: Option<Time>,
    /// Longest wait for a missing batch of a publisher before its session is fenced
    #[arg(long, value_name = "TIME")]
    pub session_lease: Option<Time>,
    /// How to print it
    #[command(flatten)]
    pub view: View,
}

/// `landfall topic describe`.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  landfall topic describe trades")]
pub struct TopicDescribe {
    /// Its name
    pub name: String,
    /// How to print it
    #[command(flatten)]
    pub view: View,
}

/// `landfall topic rm`.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  landfall topic rm trades")]
pub struct TopicRm {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// How to print what was deleted
    #[command(flatten)]
    pub view: View,
}

/// `landfall broker`.
#[derive(Subcommand, Debug)]
pub enum Broker {
    /// Forget a broker that died, as if it had been stopped in good order
    Forget(BrokerForget),
}

/// `landfall broker forget`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Refused while its process is there, or anything of the pool is on it: copies that topics have there,
batches that it landed, memory that its clients may still write into. A broker that is stopped in
good order with nothing on it is forgotten by itself.

Example:
  landfall broker forget 6")]
pub struct BrokerForget {
    /// Its number
    #[arg(value_name = "NUMBER", allow_negative_numbers = true)]
    pub number: u8,
}

/// `landfall publish`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
A message is a line without its newline; a last line without one counts. Lines that come slowly are
sent when the linger has passed. The status is 0 only when every message reached its level.

Examples:
  seq 1000000 | landfall publish numbers
  tail -f app.log | landfall publish logs --linger 20ms
  landfall publish trades --file trades.tsv --key-separator '\\t' --ack ordered")]
pub struct Publish {
    /// Topic
    pub topic: String,
    /// Read lines from this file; - is stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Level that every message has to reach [default: ordered]
    #[arg(long, value_enum)]
    pub ack: Option<words::Ack>,
    /// How bytes reach the broker [default: auto]
    #[arg(long, value_enum)]
    pub transport: Option<words::Transport>,
    /// How batches get into the pool over verbs [default: window]
    #[arg(long, value_enum)]
    pub grant: Option<words::Grant>,
    /// Bytes of a batch, its 64-byte preamble included [default: 256K]
    #[arg(long, value_name = "SIZE")]
    pub batch_bytes: Option<Size>,
    /// Longest wait for a batch to fill [default: 1ms]
    #[arg(long, value_name = "TIME")]
    pub linger: Option<Time>,
    /// Most bytes queued and unacknowledged [default: 64M]
    #[arg(long, value_name = "SIZE")]
    pub memory_bytes: Option<Size>,
    /// Longest wait without progress [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Time>,
    /// The text up to the first of these is the message's key; a line without it has none. \t is a
    /// tabulator
    #[arg(long, value_name = "TEXT")]
    pub key_separator: Option<String>,
    /// Client id, not 0: a session of its own, which fences whoever had it [default: random]
    #[arg(long, value_name = "ID")]
    pub client_id: Option<u64>,
    /// Use this broker only
    #[arg(long, value_name = "N", conflicts_with = "spread")]
    pub broker: Option<u8>,
    /// Stripe batches over all brokers
    #[arg(long)]
    pub spread: bool,
}

/// `landfall subscribe`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
With -o json every line is a document with these fields:
  schema_version  2
  position        place in the topic's order (in its log, for orders none and broker)
  client          the publisher's client id, as a text of digits
  sequence        sequence of the message's batch in its publisher's session
  timestamp       nanoseconds since 1970 that the publisher gave the message; 0: none
  key             null, or a text, or {\"base64\": \"...\"} when it is not UTF-8
  payload         a text, or {\"base64\": \"...\"} when it is not UTF-8
  log             32 is the topic's one sequence; others are the logs of single brokers
  broker          the broker that landed it
Numbers have up to 64 bits. A position that the topic has not come to is refused. Messages that
retention has taken are a counted gap on stderr.

--audit checks the order that the topic promises and reports on stderr at the end; the status is 1
when it was broken.

Examples:
  landfall subscribe trades --from latest
  landfall subscribe trades --until-end -o json | jq .payload
  landfall subscribe trades --from 2026-01-31T12:00:00Z --count 10
  landfall subscribe trades --until-end --audit >/dev/null")]
pub struct Subscribe {
    /// Topic
    pub topic: String,
    /// Where to start: earliest, latest, a position, a time in RFC 3339, or @ and nanoseconds since
    /// 1970 [default: earliest]
    #[arg(long, value_name = "START", allow_negative_numbers = true)]
    pub from: Option<Start>,
    /// Stop after this many messages; without --until-end, fewer is a failure
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop where the topic ended when the subscription began; a signal before that is a failure
    #[arg(long)]
    pub until_end: bool,
    /// How to print messages [default: raw]
    #[arg(short, long, value_enum)]
    pub output: Option<words::Lines>,
    /// How bytes come [default: auto]
    #[arg(long, value_enum)]
    pub transport: Option<words::Transport>,
    /// How bytes come over verbs [default: pushed]
    #[arg(long, value_enum)]
    pub read: Option<words::Read>,
    /// Read from this broker
    #[arg(long, value_name = "N")]
    pub broker: Option<u8>,
    /// Check the topic's order
    #[arg(long)]
    pub audit: bool,
}

/// `landfall config`.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Print every setting with its effective value
    Show(ConfigShow),
}

/// `landfall config show`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  LANDFALL__PUBLISH__LINGER=5ms landfall config show --origin")]
pub struct ConfigShow {
    /// Say where each value came from
    #[arg(long)]
    pub origin: bool,
    /// How to print it
    #[command(flatten)]
    pub view: View,
}

impl Cli {
    /// The flags that stand for settings.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.set("control.address", "--control", self.control.as_ref());
        flags.set("control.wait", "--wait", self.wait);
        let output = match &self.command {
            Command::Topic(Topic::Create(args)) => args.view.output,
            Command::Topic(Topic::Ls(view)) | Command::Cluster(view) => view.output,
            Command::Errors(args) => args.view.output,
            Command::Topic(Topic::Describe(args)) => args.view.output,
            Command::Topic(Topic::Rm(args)) => args.view.output,
            Command::Counters(args) => args.view.output,
            Command::Config(ConfigCommand::Show(args)) => args.view.output,
            Command::Bench(args) => args.common().output,
            Command::Demo(args) => args.output,
            Command::Doctor(args) => args.output,
            Command::Verify(args) => args.output,
            Command::Recover(args) => args.output,
            Command::Up(_) | Command::Broker(_) | Command::Publish(_) | Command::Subscribe(_) => {
                None
            }
        };
        flags.set("output.format", "--output", output);
        match &self.command {
            Command::Topic(Topic::Create(args)) => {
                flags.set("topic.order", "--order", args.order);
                flags.set("topic.replicas", "--replicas", args.replicas);
            }
            Command::Publish(args) => args.flags(&mut flags),
            Command::Subscribe(args) => {
                flags.set("subscribe.from", "--from", args.from);
                flags.set("subscribe.transport", "--transport", args.transport);
                flags.set("subscribe.read", "--read", args.read);
                flags.set("subscribe.output", "--output", args.output);
            }
            Command::Up(args) => args.flags(&mut flags),
            Command::Bench(args) => args.flags(&mut flags),
            Command::Demo(args) => args.flags(&mut flags),
            _ => {}
        }
        flags
    }
}

impl Publish {
    fn flags(&self, flags: &mut Flags) {
        flags.set("publish.ack", "--ack", self.ack);
        flags.set("publish.transport", "--transport", self.transport);
        flags.set("publish.grant", "--grant", self.grant);
        flags.set("publish.batch_bytes", "--batch-bytes", self.batch_bytes);
        flags.set("publish.linger", "--linger", self.linger);
        flags.set("publish.memory_bytes", "--memory-bytes", self.memory_bytes);
        flags.set("publish.timeout", "--timeout", self.timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn look(command: &mut clap::Command) {
            let names: Vec<String> =
                command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
            if names.is_empty() {
                let help = command.render_long_help().to_string();
                assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
            }
            for name in names.iter().filter(|name| *name != "help") {
                look(command.find_subcommand_mut(name).unwrap());
            }
        }
        look(&mut Cli::command());
    }
}
