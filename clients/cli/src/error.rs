//! Failures: what, why, the next command, and the exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use crate::frozen;

/// What kind of failure this is, which is what the exit status says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Whoever reads stdout has had enough: status 0, and nothing is said.
    PipeClosed,
    /// It was tried and failed: status 1.
    Failed,
    /// It failed here, and the system has no part in it: status 1, and no view of it says more.
    Here,
    /// The command line or the configuration is wrong: status 2.
    Usage,
    /// Nobody answers at the address: status 3.
    Unreachable,
}

/// Why a command stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its kind.
    pub kind: Kind,
    what: String,
    why: String,
    next: Option<String>,
}

/// What every command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// It was tried and failed. Whoever ran out of files is told of the bound, wherever that was.
    pub fn failed(what: impl Into<String>, why: impl fmt::Display) -> Self {
        let failure =
            Self { kind: Kind::Failed, what: what.into(), why: why.to_string(), next: None };
        let too_many = io::Error::from(Errno::EMFILE).to_string();
        if !failure.why.contains(&too_many) {
            return failure;
        }
        let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let more = most.saturating_mul(4).max(1024);
        failure.next(format!("ulimit -n {more}  (this process may open {most} files)"))
    }

    /// It failed here, and the system has no part in it.
    pub fn here(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { kind: Kind::Here, ..Self::failed(what, why) }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { kind: Kind::Usage, ..Self::failed(what, why) }
    }

    /// Nobody answers at the address.
    pub fn unreachable(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { kind: Kind::Unreachable, ..Self::failed(what, why) }
    }

    /// What the client library answered.
    pub fn client(what: impl Into<String>, error: landfall::Error) -> Self {
        let failure = match &error {
            // What was asked for cannot be, whatever the system does.
            landfall::Error::Control { status: 400, .. }
            | landfall::Error::Setting { .. }
            | landfall::Error::BeyondEnd { .. }
            | landfall::Error::Address { .. } => Self::usage(what, &error),
            landfall::Error::TooLarge { .. } => Self::here(what, &error),
            _ => Self::failed(what, &error),
        };
        if let landfall::Error::Unreachable { who, address, why } = &error
            && who == "control"
            && why.starts_with("timeout")
            && let Some(process) = frozen::listener(address)
        {
            // Another one beside it would be no help.
            return Self::unreachable(failure.what, process);
        }
        if error.is_unreachable() {
            let next = "landfall up  (or name the address with --control or LANDFALL_CONTROL)";
            return Self { kind: Kind::Unreachable, ..failure }.next(next);
        }
        match &error {
            landfall::Error::NoTopic { .. } => failure.next("landfall topic ls"),
            landfall::Error::Control { status: 404, request, .. } => {
                failure.next(match request.contains("/brokers/") {
                    true => "landfall cluster",
                    false => "landfall topic ls",
                })
            }
            landfall::Error::NoBroker { .. } => failure.next("landfall cluster"),
            _ => failure,
        }
    }

    /// Names the command that shows the topic, where that says more: what cannot be is no matter of
    /// the topic's.
    pub fn about(self, topic: &str) -> Self {
        match self.kind {
            Kind::Failed => self.next(format!("landfall topic describe {topic}")),
            _ => self,
        }
    }

    /// Names the next command.
    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.next.get_or_insert(command.into());
        self
    }

    /// The exit status.
    pub fn status(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::PipeClosed => 0,
            Kind::Failed | Kind::Here => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// An error of writing to stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::BrokenPipe => Kind::PipeClosed,
            _ => Kind::Failed,
        };
        Self { kind, ..Self::failed("cannot write to stdout", error) }
    }
}

/// Turns the client library's errors into failures that say what was tried.
pub trait Tried<T> {
    /// `what` is a phrase such as "cannot publish to topic x".
    fn tried(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> Tried<T> for Result<T, landfall::Error> {
    fn tried(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::client(what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_the_next_command() {
        let failure = Failure::failed("cannot publish to topic a", "it is full")
            .next("landfall topic describe a")
            .next("never said: the first one is nearer to the cause");
        assert_eq!(
            failure.to_string(),
            "cannot publish to topic a: it is full\n  next: landfall topic describe a"
        );
    }

    #[test]
    fn who_runs_out_of_files_is_told_how_many_there_may_be() {
        let error = io::Error::from(Errno::EMFILE);
        let text = Failure::failed("cannot publish", format!("dial x: {error}")).to_string();
        assert!(text.contains("next: ulimit -n ") && text.contains("may open "), "{text}");
    }

    #[test]
    fn a_broker_that_is_not_there_is_looked_for_among_brokers() {
        let missing = |request: &str| landfall::Error::Control {
            request: request.into(),
            status: 404,
            code: "not_found".into(),
            message: "nobody".into(),
        };
        let text = |request| Failure::client("cannot", missing(request)).to_string();
        assert!(text("DELETE /v1/brokers/9").contains("next: landfall cluster"));
        assert!(text("GET /v1/topics/x").contains("next: landfall topic ls"));
    }

    #[test]
    fn what_control_calls_bad_input_is_a_wrong_command_line() {
        let kind = |status| {
            let (request, code, message) = (String::new(), String::new(), String::new());
            let error = landfall::Error::Control { request, status, code, message };
            Failure::client("cannot make topic x", error).kind
        };
        assert_eq!([400, 409, 503].map(kind), [Kind::Usage, Kind::Failed, Kind::Failed]);
    }

    #[test]
    fn what_failed_here_names_no_view_of_the_topic() {
        let too_large = landfall::Error::TooLarge { bytes: 9, most: 8 };
        for failure in [Failure::here("a", "b"), Failure::client("a", too_large)] {
            let failure = failure.about("t");
            assert_eq!((failure.status(), &failure.next), (ExitCode::from(1), &None));
        }
        assert!(Failure::failed("a", "b").about("t").next.is_some());
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.kind, Kind::PipeClosed);
        let full = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.kind, Kind::Failed);
    }
}
