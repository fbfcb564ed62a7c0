//! The landfall tool for people: a system on this machine, topics, publishing, reading, measuring.
//!
//! Data goes to stdout and everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong
//! command line or configuration, 3 nobody answers at the control address.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod config;
mod demo;
mod doctor;
mod error;
mod frozen;
mod out;
mod publish;
mod recover;
mod signals;
mod starting;
mod subscribe;
mod topic;
mod units;
mod up;
mod verify;
mod view;
mod words;

use std::process::ExitCode;

use clap::Parser;
use landfall::Client;
use landfall_pool::stdio::stdout_was_closed;

use crate::args::{Broker, BrokerForget, Cli, Command, ConfigCommand};
use crate::config::Config;
use crate::error::{Failure, Kind, Outcome, Tried};

/// Runs the tool with this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and the version are data as well.
        Err(text) if !text.use_stderr() && stdout_was_closed() => return fail(&out::closed()),
        // Wrong arguments end here, with status 2; --help and --version with 0.
        Err(error) => error.exit(),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    if failure.kind != Kind::PipeClosed {
        out::say_failure(failure);
    }
    failure.status()
}

/// Whether a command is there for what it prints: `publish` prints nothing, and `up` a line that
/// nobody has to read.
fn prints(command: &Command) -> bool {
    !matches!(command, Command::Publish(_) | Command::Up(_))
}

fn run(cli: &Cli) -> Outcome {
    if prints(&cli.command) && stdout_was_closed() {
        // Before anything is made, changed or measured of which nothing could be said.
        return Err(out::closed());
    }
    let config = Config::read(cli.config.as_deref(), cli.flags())?;
    let settings = &config.settings;
    match &cli.command {
        Command::Up(args) => up::run(args, settings),
        Command::Topic(command) => topic::run(command, settings, &client(&config)?),
        Command::Broker(Broker::Forget(args)) => forget(args, &client(&config)?),
        Command::Publish(args) => publish::run(args, settings, &client(&config)?),
        Command::Subscribe(args) => subscribe::run(args, settings, &client(&config)?),
        Command::Bench(args) => bench::run(args, &config),
        Command::Demo(args) => demo::run(args, settings),
        Command::Doctor(args) => doctor::run(args, settings),
        Command::Verify(args) => verify::run(args, settings),
        Command::Recover(args) => recover::run(args, settings),
        Command::Cluster(_) => view::cluster(settings, &client(&config)?),
        Command::Counters(args) => view::counters(args.all, settings, &client(&config)?),
        Command::Errors(args) => view::errors(args.all, settings, &client(&config)?),
        Command::Config(ConfigCommand::Show(args)) => view::config(args.origin, &config),
    }
}

fn forget(args: &BrokerForget, client: &Client) -> Outcome {
    let number = args.number;
    let forgotten = client.forget_broker(number).tried(|| format!("cannot forget broker {number}"));
    forgotten.map_err(|failure| failure.next("landfall cluster"))?;
    let mut out = out::Out::new();
    out.line(format_args!("forgot broker {number}"))?;
    out.flush()
}

/// A client of the configured control. One that is there and stopped is not waited for; one that is
/// just being started is.
fn client(config: &Config) -> Outcome<Client> {
    let control = &config.settings.control;
    let client = Client::new(&control.address)
        .map_err(|error| Failure::usage("the control address cannot be used", error))?;
    starting::wait(&client, control.wait)?;
    Ok(client)
}
