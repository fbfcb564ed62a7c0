//! The command lines of control and brokers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::LocalConfig;
use super::data::data_directories;
use crate::Idle;

pub(super) fn broker_command(
    binary: &Path,
    config: &LocalConfig,
    pool: &Path,
    number: usize,
) -> Command {
    let mut command = Command::new(binary);
    command.arg("--pool").arg(pool);
    belongs(&mut command, config);
    command.args(["--number", &number.to_string(), "--idle", idle_word(config.idle)]);
    command.args(["--parent", &std::process::id().to_string()]);
    let lease_ms = config.session_lease.as_millis();
    command.args(["--session-lease-ms", &lease_ms.to_string()]);
    // What it has besides that is for receipts, readers and the last sync.
    let stop_wait_ms = config.stop_wait.as_millis() / 2;
    command.args(["--stop-wait-ms", &stop_wait_ms.to_string()]);
    if let Some(address) = config.verbs {
        command.args(["--verbs", &SocketAddr::new(address, 0).to_string()]);
        command.args(["--verbs-grant", &config.verbs_grant.to_string()]);
        let lease_ms = config.verbs_lease.as_millis();
        command.args(["--verbs-lease-ms", &lease_ms.to_string()]);
    }
    if let Some(data) = &config.data {
        command.arg("--data").arg(data.join(format!("broker-{number}")));
        command.args(["--data-file-bytes", &config.data_file_bytes.to_string()]);
        let mine = data.join(format!("broker-{number}"));
        for other in data_directories(data).into_iter().filter(|other| *other != mine) {
            command.arg("--read-data").arg(other);
        }
        let faults = config.data_faults.iter().find(|(broker, _)| *broker == number);
        if let Some((_, faults)) = faults {
            command.args(["--data-faults", faults]);
        }
    }
    command
}

/// Whom the files and sockets of a process belong to, and where they are.
fn belongs(command: &mut Command, config: &LocalConfig) {
    if let Some(group) = &config.group {
        command.args(["--group", group]);
    }
    if let Some(sockets) = &config.sockets {
        command.arg("--sockets").arg(sockets);
    }
}

pub(super) fn control_command(
    binary: &Path,
    config: &LocalConfig,
    pool: &Path,
    listen: &str,
) -> Command {
    let mut command = Command::new(binary);
    command.arg("--pool").arg(pool);
    command.args(["--pool-bytes", &config.pool_bytes.to_string()]);
    command.args(["--segment-bytes", &config.segment_bytes.to_string()]);
    command.args(["--sessions", &config.sessions.to_string()]);
    command.args(["--listen", listen, "--idle", idle_word(config.idle)]);
    command.args(["--parent", &std::process::id().to_string()]);
    command.args(["--copy-move-ms", &config.copy_move.as_millis().to_string()]);
    command.args(["--session-lease-ms", &config.session_lease.as_millis().to_string()]);
    belongs(&mut command, config);
    if let Some(unix) = &config.unix {
        command.args(["--unix", unix]);
    }
    if let Some(host) = &config.host {
        command.args(["--host", host]);
    }
    if config.prefault {
        command.arg("--prefault");
    }
    if config.sparse {
        command.arg("--sparse");
    }
    if config.flush {
        command.args(["--coherence", "flush"]);
    }
    if config.forget_lost {
        command.arg("--forget-lost");
    }
    if let Some(data) = &config.data {
        for directory in data_directories(data) {
            command.arg("--restore").arg(directory);
        }
    }
    command
}

fn idle_word(idle: Idle) -> &'static str {
    match idle {
        Idle::Spin => "spin",
        Idle::Backoff => "backoff",
    }
}
