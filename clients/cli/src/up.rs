//! `landfall up`: a system in the foreground.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use landfall::Client;
use landfall::local::{Lingering, LocalConfig, LocalSystem, Starting, Stopping, rdma_address};
use landfall_layout::geometry::Geometry;
use landfall_layout::limits::BROKERS_MAX;
use landfall_pool::owner::own_what_is_made;
use landfall_pool::process::survive_file_size;
use landfall_pool::stderr;
use landfall_verify::replicas::{level_above, level_below};

use crate::args::system::Up;
use crate::config::Settings;
use crate::error::{Failure, Kind, Outcome, Tried};
use crate::out::{Out, grouped};
use crate::signals::Stop;
use crate::units::Time;

/// How often the children are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often it is said that the start waits.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Topics that are named at the end.
const NAMED: usize = 16;

pub fn run(args: &Up, settings: &Settings) -> Outcome {
    let listen = listen_address(&settings.control.address)?;
    let up = &settings.up;
    check_size(up.pool.as_deref(), settings)?;
    up.data.as_deref().map(check_level).transpose()?;
    survive_file_size();
    let group = up.group.as_deref().map(str::parse).transpose();
    let owned = group.and_then(own_what_is_made);
    owned.map_err(|why| {
        Failure::usage(format!("--group {}", up.group.as_deref().unwrap_or("")), why)
    })?;
    let config = LocalConfig {
        brokers: settings.up.brokers,
        pool_bytes: settings.up.pool_bytes.0,
        segment_bytes: settings.up.segment_bytes.0,
        sessions: settings.up.sessions,
        control: listen.to_owned(),
        pool: up.pool.clone(),
        idle: settings.up.idle.into(),
        binaries: None,
        restart: true,
        unix: up.unix.clone(),
        host: up.host.clone(),
        group: up.group.clone(),
        sockets: up.sockets.clone(),
        prefault: settings.up.prefault,
        sparse: settings.up.sparse,
        verbs: up.verbs.as_deref().map(rdma).transpose()?,
        verbs_grant: settings.up.verbs_grant.into(),
        data: up.data.clone(),
        forget_lost: args.forget_lost,
        copy_move: settings.up.copy_move.0,
        start_wait: settings.up.start_timeout.0,
        stop_wait: settings.up.stop_timeout.0,
        ..LocalConfig::default()
    };
    if settings.up.start_timeout.0.is_zero() {
        return Err(Failure::usage("--start-timeout 0s is not possible", "a start takes time"));
    }
    let stop = Stop::on_patient_signals()?;
    let mut told = Duration::ZERO;
    let goes_on = |starting: Starting| {
        // Another process is waited for.
        told = told.min(starting.waited);
        if starting.waited >= told + TELL_EVERY {
            told = starting.waited;
            tell_wait(&starting, &settings.up.start_timeout);
        }
        !stop.asked()
    };
    let tell_stop = |stopping: Stopping| tell_stop(&stopping, &settings.up.stop_timeout);
    let not_stopped = |error| Failure::failed("not everything stopped by itself", error);
    let mut system = match LocalSystem::start_while(config, goes_on, tell_stop) {
        Ok(Some(system)) => system,
        Ok(None) => return Ok(()),
        Err(error) if stop.asked() => return Err(not_stopped(error)),
        Err(error) => return Err(explain(error, listen)),
    };
    for line in system.tick() {
        stderr::note(line);
    }
    for directory in system.data_left() {
        stderr::note(format_args!(
            "{} is of a broker that this system does not have: its topics are read, and nothing \
             more is kept there; say --brokers with as many as before to keep all copies",
            directory.display()
        ));
    }
    let mut out = Out::new();
    let ready = out.line(format_args!("ready {}", system.address())).and_then(|()| out.flush());
    match ready {
        // Whoever waited for the line has read enough; the system is wanted all the same.
        Err(failure) if failure.kind != Kind::PipeClosed => return Err(failure),
        _ => {}
    }
    while !stop.asked() {
        for line in system.tick() {
            stderr::note(line);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    if up.pool.is_none() {
        tell_ends(&system.client());
    }
    system.stop_and_tell(tell_stop).map_err(not_stopped)
}

/// Names the topics that end with anonymous memory.
fn tell_ends(client: &Client) {
    // Nobody who asks for a stop waits for a control that does not answer.
    if client.health_within(Duration::from_secs(1)).is_err() {
        return;
    }
    let topics = client.topics().unwrap_or_default();
    let ends = topics.iter().filter(|topic| topic.replicas < 2 && topic.messages > 0);
    let names: Vec<_> = ends
        .map(|topic| format!("{} ({} messages)", topic.name, grouped(topic.messages)))
        .collect();
    let Some(shown) = names.get(..names.len().min(NAMED)).filter(|shown| !shown.is_empty()) else {
        return;
    };
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    stderr::note(format_args!(
        "the pool was anonymous memory, so that topics without replicas end with it: {}{more}; \
         topic create --replicas 2 with up --data DIR keeps them, and so does up --pool FILE",
        shown.join(", ")
    ));
}

/// What no system can have is refused before anything is started.
fn check_size(pool: Option<&Path>, settings: &Settings) -> Outcome {
    let up = &settings.up;
    let cannot = |why: String| Failure::usage("such a system cannot be", why);
    if !(1..=BROKERS_MAX).contains(&up.brokers) {
        let why = format!("{} brokers are not possible; say 1 to {BROKERS_MAX}", up.brokers);
        return Err(cannot(why));
    }
    // A pool that is there is used as it is.
    if pool.is_some_and(Path::exists) {
        return Ok(());
    }
    let geometry = Geometry::new(up.pool_bytes.0, up.segment_bytes.0, up.sessions);
    geometry.map(drop).map_err(|error| cannot(error.to_string()))
}

/// The directory is to have a `broker-N` for each broker: one that is a level off would seem empty.
fn check_level(data: &Path) -> Outcome {
    if let Some(above) = level_above(data) {
        let what = format!("{} is the data directory of a single broker", data.display());
        let next = "name the directory above it, in which each broker has its own";
        return Err(
            Failure::usage(what, next).next(format!("landfall up --data {}", above.display()))
        );
    }
    if let Some(below) = level_below(data) {
        stderr::note(format_args!(
            "{} has brokers' directories, and {} has none yet: what was kept there is not read; if \
             it is meant, stop this and say --data {}",
            below.display(),
            data.display(),
            below.display()
        ));
    }
    Ok(())
}

/// The address that brokers take clients over RDMA on.
fn rdma(address: &str) -> Outcome<IpAddr> {
    match address {
        "auto" => rdma_address().tried(|| "brokers cannot use RDMA here".into()),
        address => address.parse().map_err(|error| {
            let what = format!("--verbs {address} is no address: {error}");
            Failure::usage(what, "say an IP address of an RDMA device, or auto")
        }),
    }
}

/// The address to listen on: control takes `HOST:PORT`.
fn listen_address(address: &str) -> Outcome<&str> {
    let listen = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    if let Some(unix) = listen.strip_prefix("unix:") {
        return Err(Failure::usage(
            "the control address cannot be used",
            format!("{address:?} is a Unix socket, and control needs HOST:PORT as well"),
        )
        .next(format!("landfall up --unix {unix}")));
    }
    if listen.contains(',') {
        let why = format!("{address:?} are several, and control listens at one of them");
        return Err(Failure::usage("the control address cannot be used", why)
            .next("landfall up --control HOST:PORT"));
    }
    // A name or an address of IPv4 has no colon, and one of IPv6 has brackets around its own.
    let is_host = |host: &str| match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(':'),
    };
    let port = listen.rsplit_once(':').filter(|(host, _)| is_host(host));
    if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
        return Err(Failure::usage(
            "the control address cannot be used",
            format!("{address:?} is no HOST:PORT; an address of IPv6 needs brackets: [::1]:7400"),
        )
        .next("landfall up --control 127.0.0.1:7400"));
    }
    Ok(listen)
}

/// Says for whom the start waits.
fn tell_wait(starting: &Starting, most: &Time) {
    let Starting { name, waited, said } = starting;
    let said = if said.is_empty() { "nothing yet" } else { said.trim_end() };
    stderr::note(format_args!(
        "{name} is not ready after {} s; it is waited for up to {most} (--start-timeout); it said: \
         {said}",
        waited.as_secs()
    ));
}

/// Says what was said at the end, and for whom the stop waits.
fn tell_stop(stopping: &Stopping, most: &Time) {
    let (left, waited) = match stopping {
        Stopping::Said(line) => return stderr::note(line),
        Stopping::Waits { left, waited } => (left, waited),
    };
    let left: Vec<_> = left.iter().map(Lingering::to_string).collect();
    stderr::note(format_args!(
        "{} {} not ended after {} s: waiting for up to {most} (--stop-timeout), then killing",
        left.join(", "),
        if left.len() == 1 { "has" } else { "have" },
        waited.as_secs()
    ));
}

fn explain(error: landfall::Error, listen: &str) -> Failure {
    let text = error.to_string();
    let failure = Failure::failed("the system did not start", &text);
    if text.to_ascii_lowercase().contains("in use") {
        return failure.next(format!(
            "landfall up --control 127.0.0.1:0  (takes any free port; {listen} is taken, perhaps \
             by another landfall: see landfall cluster)"
        ));
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_listens_where_clients_look() {
        assert_eq!(listen_address("http://127.0.0.1:7400").unwrap(), "127.0.0.1:7400");
        assert_eq!(listen_address("http://127.0.0.1:7400/").unwrap(), "127.0.0.1:7400");
        assert_eq!(listen_address("[::1]:0").unwrap(), "[::1]:0");
        for bare in ["::1", "::1:7400", "http://::1:7400", "[::1]", "[x]:1"] {
            let failure = listen_address(bare).unwrap_err().to_string();
            assert!(failure.contains("needs brackets: [::1]:7400"), "{failure}");
        }
        let failure = listen_address("127.0.0.1:1,127.0.0.1:2").unwrap_err().to_string();
        assert!(failure.contains("several"), "{failure}");
        let failure = listen_address("unix:/run/x").unwrap_err().to_string();
        assert!(failure.contains("landfall up --unix /run/x"), "{failure}");
    }
}
