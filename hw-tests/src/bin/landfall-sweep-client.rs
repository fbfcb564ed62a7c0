//! `landfall-sweep-client`: a publisher or a reader of the kill sweep, a process of its own.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use landfall::{Client, Transport};
use landfall_hw_tests::Failure;
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
        Err(failure) => {
            eprintln!("landfall-sweep-client: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn act(role: Role) -> Result<(), Failure> {
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
