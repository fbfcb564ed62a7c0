//! `landfall-sweep-client`: a publisher or a reader of the kill sweep, a process of its own.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use landfall::{Client, Transport};
use landfall_hw_tests::Failure;
use landfall_hw_tests::faults::client::Ended;
use landfall_hw_tests::faults::fault::Attack;
use landfall_hw_tests::faults::hostile::{Attacking, attack};
use landfall_hw_tests::faults::{client as steady, seat::BROKEN};
use landfall_hw_tests::sweep::client::{Publishing, Reading, publish, subscribe};

/// A client that notes what it does, and goes on where its life before this one ended.
#[derive(Parser)]
#[command(name = "landfall-sweep-client", version)]
struct Flags {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Publishes what is still to be published.
    Publish {
        #[command(flatten)]
        common: Common,
        /// Its client id.
        #[arg(long)]
        client: u64,
        /// Batches in all.
        #[arg(long)]
        batches: u64,
        /// Messages in each.
        #[arg(long)]
        messages: u64,
        /// Bytes of each message.
        #[arg(long)]
        bytes: usize,
        /// Batches under way before all receipts are waited for.
        #[arg(long)]
        under_way: u64,
        /// Deals batches out over all brokers.
        #[arg(long)]
        spread: bool,
        /// Wants receipts for what is durable.
        #[arg(long)]
        durable: bool,
        /// Order token: reserves positions, fills one and is gone without a word.
        #[arg(long)]
        leaves: bool,
    },
    /// Reads from the earliest message on.
    Subscribe {
        #[command(flatten)]
        common: Common,
        /// Reads on until this file is there.
        #[arg(long)]
        until: PathBuf,
    },
    /// Publishes batch after batch until a file is there.
    Send {
        #[command(flatten)]
        steady: Steady,
        /// Its client id.
        #[arg(long)]
        client: u64,
        /// Messages in each batch.
        #[arg(long)]
        messages: u64,
        /// Bytes of each message.
        #[arg(long)]
        bytes: usize,
        /// Between two batches.
        #[arg(long)]
        pace_ms: u64,
        /// Deals batches out over all brokers.
        #[arg(long)]
        spread: bool,
        /// Wants receipts for what is durable.
        #[arg(long)]
        durable: bool,
    },
    /// Reads from the earliest message on until a file is there.
    Follow {
        #[command(flatten)]
        steady: Steady,
        /// Its number in its first life; a later one's is ten times as many lives higher.
        #[arg(long)]
        reader: u32,
        /// It reads what there is, and ends.
        #[arg(long)]
        to_the_end: bool,
    },
    /// Breaks the rules for a while.
    Attack {
        /// Control's address.
        #[arg(long)]
        control: String,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// How.
        #[arg(long)]
        attack: Attack,
        /// The pool.
        #[arg(long)]
        pool: PathBuf,
        /// Where to note what is sent.
        #[arg(long)]
        notes: PathBuf,
        /// Milliseconds.
        #[arg(long)]
        ms: u64,
    },
}

#[derive(Args)]
struct Steady {
    /// Control's address.
    #[arg(long)]
    control: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The number that its messages carry.
    #[arg(long)]
    topic_number: u32,
    /// How to reach the broker.
    #[arg(long)]
    transport: Transport,
    /// The broker; any, without it.
    #[arg(long)]
    broker: Option<u8>,
    /// Where to note what is done and seen.
    #[arg(long)]
    notes: PathBuf,
    /// It ends once this file is there.
    #[arg(long)]
    until: PathBuf,
    /// The process that started this one; its end is this one's end.
    #[arg(long)]
    parent: i32,
    /// Which life this is, from 0.
    #[arg(long)]
    life: u32,
}

impl Steady {
    fn begin(self) -> Result<(steady::Common, u32), Ended> {
        follow(self.parent).map_err(|failure| Ended::GaveUp(failure.to_string()))?;
        let common = steady::Common {
            control: self.control,
            topic: self.topic,
            topic_number: self.topic_number,
            transport: self.transport,
            broker: self.broker,
            notes: self.notes,
            until: self.until,
        };
        Ok((common, self.life))
    }
}

#[derive(Args)]
struct Common {
    /// Control's address.
    #[arg(long)]
    control: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How to reach the broker.
    #[arg(long)]
    transport: Transport,
    /// The broker.
    #[arg(long)]
    broker: u8,
    /// Where to note what is done and seen.
    #[arg(long)]
    notes: PathBuf,
    /// The process that started this one; its end is this one's end.
    #[arg(long)]
    parent: i32,
    /// Which life this is, from 0.
    #[arg(long)]
    life: u32,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match act(flags.role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::GaveUp(why)) => {
            eprintln!("landfall-sweep-client: {why}");
            ExitCode::FAILURE
        }
        Err(Ended::Broken(failure)) => {
            eprintln!("landfall-sweep-client: {failure}");
            ExitCode::from(BROKEN)
        }
    }
}

fn act(role: Role) -> Result<(), Ended> {
    match role {
        Role::Send { steady, client, messages, bytes, pace_ms, spread, durable } => {
            let (common, _) = steady.begin()?;
            let pace = Duration::from_millis(pace_ms);
            steady::publish(&steady::Publishing {
                common,
                client,
                spread,
                durable,
                messages,
                bytes,
                pace,
            })
        }
        Role::Follow { steady, reader, to_the_end } => {
            let (common, life) = steady.begin()?;
            steady::subscribe(&common, reader + 10 * life, to_the_end)
        }
        Role::Attack { control, topic, attack: how, pool, notes, ms } => {
            let lasts = Duration::from_millis(ms);
            let what = Attacking { control, topic, attack: how, pool, notes, lasts };
            attack(&what).map_err(|failure| Ended::GaveUp(failure.to_string()))
        }
        role => sweep(role).map_err(|failure| Ended::GaveUp(failure.to_string())),
    }
}

fn sweep(role: Role) -> Result<(), Failure> {
    match role {
        Role::Publish {
            common,
            client,
            batches,
            messages,
            bytes,
            under_way,
            spread,
            durable,
            leaves,
        } => {
            follow(common.parent)?;
            publish(&Publishing {
                control: common.control,
                topic: common.topic,
                client,
                transport: common.transport,
                broker: common.broker,
                spread,
                durable,
                under_way,
                batches,
                messages,
                bytes,
                leaves,
                notes: common.notes,
            })
        }
        Role::Subscribe { common, until } => {
            follow(common.parent)?;
            let client = Client::new(&common.control)?;
            subscribe(
                &client,
                &Reading {
                    topic: common.topic,
                    reader: common.life,
                    transport: common.transport,
                    broker: common.broker,
                    notes: common.notes,
                    until: Some(until),
                },
            )
        }
        Role::Send { .. } | Role::Follow { .. } | Role::Attack { .. } => Ok(()),
    }
}

/// Makes the kernel end this process when its parent ends.
fn follow(parent: i32) -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let now = nix::unistd::getppid().as_raw();
    // It may have ended before the kernel was asked.
    if now == parent {
        Ok(())
    } else {
        Err(Failure::new(format!("the parent is process {now}, not {parent}: it has ended")))
    }
}
