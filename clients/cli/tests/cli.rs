//! The tool as people meet it: exit statuses, messages, configuration, no system needed.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

/// The tool, away from the machine's own configuration.
fn landfall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANDFALL")) {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env("NO_COLOR", "1");
    // Nobody will come to where nobody is.
    command.env("LANDFALL__CONTROL__WAIT", "0s");
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    landfall().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A connection whose own port nobody listens on, and nobody can while it is open.
fn nobody() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

#[test]
fn wrong_command_lines_have_status_2_and_say_why_on_stderr() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["publsh", "x"], "publish"),
        (&["publish"], "<TOPIC>"),
        (&["publish", "x", "--ack", "sure"], "ordered"),
        (&["publish", "x", "--batch-bytes", "5 apples"], "64K"),
        (&["publish", "x", "--linger", "5"], "250us"),
        (&["publish", "x", "--client-id", "0"], "no client"),
        (&["publish", "x", "--key-separator", ""], "at least one"),
        (&["publish", "x", "--broker", "1", "--spread"], "cannot be used with"),
        (&["publish", "x", "--file", "/nonexistent/file"], "/nonexistent/file"),
        (&["publish", "x", "--file", "/tmp"], "directory"),
        (&["publish", "a b"], "' '"),
        (&["topic", "create", "é"], "letters a-z"),
        (&["topic", "create", ""], "at least one character"),
        (&["topic", "create", "x", "--order", "best"], "strong"),
        (&["topic", "rm"], "NAME"),
        (&["subscribe", "x", "--from", "soon"], "RFC 3339"),
        (&["subscribe", "x", "-o", "yaml"], "json"),
        (&["bench", "bw", "--transport", "pigeon"], "memory"),
        (&["bench", "bw", "--seconds", "0"], "0.1"),
        (&["bench", "bw", "--message-bytes", "2M"], "--batch-bytes"),
        (&["bench", "bw", "--publish-only", "--ack", "none"], "receipts"),
        (&["bench", "lat", "--rate", "0"], "more than 0"),
        (&["demo", "--chunk-bytes", "1G"], "131072"),
        (&["--config", "/nonexistent/x.toml", "topic", "ls"], "--config names it"),
        (&["--control", "ftp://x", "topic", "ls"], "no address"),
        (&["topic", "create", "x", "--replicas", "0"], "1..=4"),
        (&["topic", "create", "x", "--replicas", "9"], "1..=4"),
        (&["topic", "create", "x", "--retention", "0"], "leave --retention out"),
        (&["topic", "create", "x", "--retention-bytes", "0K"], "leave --retention-bytes out"),
        (&["topic", "create", "x", "--disk-time", "0ms"], "leave --disk-time out"),
        (&["topic", "create", "x", "--disk-bytes", "0"], "leave --disk-bytes out"),
        (&["up", "--control", "unix:/tmp/x"], "--unix /tmp/x"),
        (&["up", "--control", "nonsense"], "HOST:PORT"),
        (&["up", "--control", "127.0.0.1:70000"], "HOST:PORT"),
        (&["up", "--brokers", "99"], "1 to 32"),
        (&["up", "--brokers", "0"], "1 to 32"),
        (&["up", "--pool-bytes", "1"], "too small"),
        (&["up", "--segment-bytes", "3M"], "a power of two"),
        (&["up", "--sessions", "0"], "0 sessions"),
    ];
    for (arguments, said) in cases {
        let output = run(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?} does not say {said:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{arguments:?} wrote to stdout");
    }
}

#[test]
fn an_address_nobody_listens_on_has_status_3_and_names_the_next_command() {
    let held = nobody();
    let address = held.local_addr().unwrap().to_string();
    let cases: &[&[&str]] = &[
        &["topic", "ls"],
        &["topic", "create", "x"],
        &["topic", "describe", "x"],
        &["topic", "rm", "x"],
        &["publish", "x"],
        &["subscribe", "x"],
        &["cluster"],
        &["counters"],
        &["errors"],
    ];
    for arguments in cases {
        let output = landfall().args(*arguments).args(["--control", &address]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {stderr}");
        assert!(stderr.contains(&address), "{arguments:?} does not name {address}: {stderr}");
        assert!(stderr.contains("next: landfall up"), "{arguments:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{arguments:?} wrote to stdout");
    }
    let output = landfall().args(["topic", "ls"]).env("LANDFALL_CONTROL", &address).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&address), "LANDFALL_CONTROL was not used");
}

#[test]
fn a_unix_socket_nobody_listens_on_has_status_3() {
    for address in ["unix:/nonexistent/control", "unix:@landfall-nobody"] {
        let output = run(&["cluster", "--control", address]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{address}: {stderr}");
    }
}

#[test]
fn help_is_on_stdout_with_status_0() {
    for arguments in [&["--help"][..], &["publish", "--help"], &["bench", "bw", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("Example"), "{arguments:?}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
    }
    let help = text(&run(&["subscribe", "--help"]).stdout);
    for word in ["base64", "schema_version", "sequence"] {
        assert!(help.contains(word), "the JSON lines are described: {word}");
    }
    assert!(text(&run(&["--version"]).stdout).starts_with("landfall 0."));
}

#[test]
fn the_configuration_shows_each_value_and_where_it_came_from() {
    let dir = std::env::temp_dir().join(format!("landfall-cli-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("landfall.toml");
    std::fs::write(&file, "[publish]\nlinger = '2ms'\nack = 'none'\nbatch_bytes = '1M'\n").unwrap();
    let output = landfall()
        .current_dir(&dir)
        .args(["config", "show", "--origin", "--control", "127.0.0.1:1"])
        .env("LANDFALL__PUBLISH__ACK", "durable")
        .env("LANDFALL__UP__BROKERS", "3")
        .env("LANDFALL_CONTROL", "127.0.0.1:2")
        .output()
        .unwrap();
    let bad = landfall()
        .current_dir(&dir)
        .args(["config", "show"])
        .env("LANDFALL__PUBLISH__LINGR", "1ms")
        .output()
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = |key: &str| {
        let line = stdout.lines().find(|line| line.starts_with(&format!("{key} =")));
        line.unwrap_or_else(|| panic!("{key} is missing in {stdout}")).to_owned()
    };
    assert!(line("publish.linger").contains("\"2ms\""), "{stdout}");
    assert!(line("publish.linger").contains("# file "), "{stdout}");
    assert!(line("publish.ack").contains("\"durable\""), "{stdout}");
    assert!(line("publish.ack").ends_with("# environment LANDFALL__PUBLISH__ACK"), "{stdout}");
    assert!(line("up.brokers").contains("= 3 "), "{stdout}");
    assert!(line("control.address").ends_with("# flag --control"), "{stdout}");
    assert!(line("publish.batch_bytes").contains("\"1M\""), "{stdout}");
    assert!(line("subscribe.from").ends_with("# default"), "{stdout}");
    let stderr = text(&bad.stderr);
    assert_eq!(bad.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("LANDFALL__PUBLISH__LINGR"), "{stderr}");
    assert!(stderr.contains("did you mean publish.linger?"), "{stderr}");
}

#[test]
fn the_configuration_as_json_has_a_schema_version() {
    let output = run(&["config", "show", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema_version"], 1);
    let first = &document["settings"][0];
    assert_eq!(first["key"], "bench.batch_bytes");
    assert_eq!(first["value"], "1M");
    assert_eq!(first["origin"], "default");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly_with_status_0() {
    let mut child = landfall()
        .args(["config", "show"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_demo_names_a_folder_that_is_missing_or_empty() {
    let output = run(&["demo", "/nonexistent/folder"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("/nonexistent/folder") && stderr.contains("next:"), "{stderr}");
    let dir = std::env::temp_dir().join(format!("landfall-empty-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let output = landfall().arg("demo").arg(&dir).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no regular file"), "{stderr}");
}

#[test]
fn programs_that_are_not_built_are_named_with_the_remedy() {
    let output = landfall().arg("up").env("LANDFALL_BIN_DIR", "/nonexistent").output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("landfall-control is not in /nonexistent"), "{stderr}");
    assert!(stderr.contains("cargo build --workspace --bins"), "{stderr}");
}
