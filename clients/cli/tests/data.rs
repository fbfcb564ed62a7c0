//! What is published, read and printed with a real system.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use common::{System, landfall, shell, text};

#[test]
fn what_is_published_is_read_back_in_order_over_every_transport() {
    let system = System::start(2);
    let lines: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    for order in ["none", "broker", "total", "stream", "strong"] {
        let topic = format!("t-{order}");
        let made = system.json(&["topic", "create", &topic, "--order", order, "-o", "json"]);
        assert_eq!((&made["name"], &made["order"]), (&topic.clone().into(), &order.into()));
        let mut expected = String::new();
        for transport in ["memory", "tcp"] {
            let publish = ["publish", &topic, "--transport", transport, "--broker", "1"];
            assert_eq!(system.ok(&publish, lines.as_bytes()), "", "stdout is for data");
            expected.push_str(&lines);
        }
        for transport in ["memory", "tcp"] {
            let subscribe = ["subscribe", &topic, "--until-end", "--audit"];
            let output = system.run(&[&subscribe[..], &["--transport", transport]].concat(), b"");
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{order} over {transport}: {stderr}");
            assert!(text(&output.stdout) == expected, "{order} over {transport} differs");
            assert!(stderr.contains("0 violations"), "{stderr}");
        }
        system.ok(&["topic", "rm", &topic], b"");
    }
    let (status, said) = system.stop();
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

#[test]
fn json_lines_have_every_field_and_keys_come_back() {
    let system = System::start(1);
    system.ok(&["topic", "create", "keyed", "--order", "strong"], b"");
    let publish =
        ["publish", "keyed", "--key-separator", "\\t", "--client-id", "18446744073709551615"];
    system.ok(&publish, b"k1\tv1\nplain\n\xff\tb\xfe\nlast without newline");
    let lines = system.ok(&["subscribe", "keyed", "--until-end", "-o", "json"], b"");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for (position, line) in lines.iter().enumerate() {
        assert_eq!(line["schema_version"], 2);
        assert_eq!(line["position"], position);
        // A number of 64 bits is another one to who reads it as a floating-point one.
        assert_eq!(line["client"], u64::MAX.to_string());
        assert_eq!(line["log"], 32);
        assert_eq!(line["broker"], 0);
        assert!(line["sequence"].is_u64() && line["timestamp"].as_u64().unwrap() > 0);
    }
    assert_eq!((&lines[0]["key"], &lines[0]["payload"]), (&"k1".into(), &"v1".into()));
    assert_eq!((&lines[1]["key"], &lines[1]["payload"]), (&Value::Null, &"plain".into()));
    assert_eq!(lines[2]["key"]["base64"], "/w==");
    assert_eq!(lines[2]["payload"]["base64"], "Yv4=");
    assert_eq!(lines[3]["payload"], "last without newline");
    let from = system.ok(&["subscribe", "keyed", "--from", "2", "--count", "1"], b"");
    assert!(from.starts_with('b'), "{from:?}");
    let time = lines[0]["timestamp"].as_u64().unwrap() - 1;
    let from =
        system.ok(&["subscribe", "keyed", "--from", &format!("@{time}"), "--count", "1"], b"");
    assert_eq!(from, "v1\n");
}

#[test]
fn a_line_that_comes_slowly_is_published_after_its_linger() {
    let system = System::start(1);
    system.ok(&["topic", "create", "slow"], b"");
    let mut publish = system.command(&["publish", "slow", "--linger", "5ms"]);
    publish.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut publish = publish.spawn().unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    for number in 0..3 {
        stdin.write_all(format!("{number}\n").as_bytes()).unwrap();
        let from = number.to_string();
        let got = system.ok(&["subscribe", "slow", "--from", &from, "--count", "1"], b"");
        assert_eq!(got, format!("{number}\n"), "stdin is still open");
    }
    drop(stdin);
    let output = publish.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("3 messages reached the level ordered"));
}

#[test]
fn a_reader_that_has_enough_ends_a_subscription_quietly() {
    let system = System::start(1);
    system.ok(&["topic", "create", "long"], b"");
    let lines = "a line of some length\n".repeat(100_000);
    system.ok(&["publish", "long"], lines.as_bytes());
    let mut child = system
        .command(&["subscribe", "long", "--transport", "memory"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn failures_have_status_1_and_a_next_command() {
    let system = System::start(1);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["topic", "describe", "nope"], 1, "next: landfall topic ls"),
        (&["topic", "rm", "nope"], 1, "next: landfall topic ls"),
        (&["publish", "nope"], 1, "next: landfall topic ls"),
        (&["subscribe", "nope"], 1, "next: landfall topic ls"),
        (&["publish", "nope", "--batch-bytes", "64"], 2, "64"),
        (&["subscribe", "nope", "--from", "-1"], 2, "earliest"),
        (&["broker", "forget", "-1"], 2, "0..=255"),
    ];
    for (arguments, status, said) in cases {
        let output = system.run(arguments, b"x\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?} does not say {said:?}: {stderr}");
        assert!(!stderr.contains("describe nope") && !stderr.contains("-- -1"), "{stderr}");
    }
    // Control says so, and no other system would take it.
    let wrong = system.run(&["topic", "create", "t", "--ring-slots", "5"], b"");
    let stderr = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("power of two"), "{stderr}");
    // This one has no disk, and another may.
    let disks = system.run(&["topic", "create", "t", "--replicas", "2"], b"");
    assert_eq!(disks.status.code(), Some(1), "{}", text(&disks.stderr));
    system.ok(&["topic", "create", "t"], b"");
    let elsewhere = system.run(&["publish", "t", "--broker", "7"], b"x\n");
    let stderr = text(&elsewhere.stderr);
    assert_eq!(elsewhere.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("next: landfall cluster"), "{stderr}");
    let again = system.run(&["topic", "create", "t"], b"");
    assert_eq!(again.status.code(), Some(1));
    let durable = system.run(&["publish", "t", "--ack", "durable"], b"x\n");
    // What is asked for cannot be, whatever the system does.
    assert_eq!(durable.status.code(), Some(2), "{}", text(&durable.stderr));
    let taken = landfall().args(["up", "--control", &system.address]).output().unwrap();
    let stderr = text(&taken.stderr);
    assert_eq!(taken.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&system.address) && stderr.contains("127.0.0.1:0"), "{stderr}");
}

/// Messages go on coming more often than a subscription looks whether there are more.
#[test]
fn what_a_subscription_reads_is_in_the_pipe_while_more_comes() {
    let system = System::start(1);
    system.ok(&["topic", "create", "live"], b"");
    let mut publish = system.command(&["publish", "live", "--linger", "1ms"]);
    let mut publish = publish.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut subscribe = system.command(&["subscribe", "live", "--from", "earliest"]);
    let subscribe = subscribe.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut subscribe = subscribe.spawn().unwrap();
    let (told, tells) = std::sync::mpsc::channel();
    let mut read = BufReader::new(subscribe.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        read.read_line(&mut line).unwrap();
        told.send(line).unwrap();
    });
    let mut stdin = publish.stdin.take().unwrap();
    // Far more than what comes within the bound, and far less than what fills a buffer.
    let first = (0..2000).find_map(|number| {
        stdin.write_all(format!("{number}\n").as_bytes()).unwrap();
        tells.recv_timeout(Duration::from_millis(20)).ok()
    });
    subscribe.kill().unwrap();
    subscribe.wait().unwrap();
    drop(stdin);
    publish.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(first.as_deref(), Some("0\n"), "2000 messages were held back");
}

#[test]
fn what_cannot_be_printed_is_no_success() {
    let system = System::start(1);
    system.ok(&["topic", "create", "t"], b"");
    system.ok(&["publish", "t"], b"one\n");
    let tool = system.command(&[]).get_program().to_str().unwrap().to_owned();
    let closed = |arguments: &str| {
        let script = format!("exec {tool} {arguments} --control {} >&-", system.address);
        let output = shell(&script).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for arguments in [
        "subscribe t --until-end",
        "topic ls",
        "topic create u",
        "topic rm t",
        "cluster",
        "counters",
        "errors",
        "config show",
        "doctor",
        "verify /nonexistent",
        "bench lat",
        "--help",
        "--version",
    ] {
        let (status, said) = closed(arguments);
        assert_eq!(status, Some(2), "{arguments}: {said}");
        assert!(said.contains("stdout is closed"), "{arguments}: {said}");
    }
    let topics = system.json(&["topic", "ls", "-o", "json"]);
    assert_eq!(topics["topics"].as_array().unwrap().len(), 1, "nothing was made or removed");
    let (status, said) = closed("publish t </dev/null");
    assert_eq!(status, Some(0), "{said}");
    let full = shell(&format!("exec {tool} topic ls --control {} >/dev/full", system.address));
    let output = { full }.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn a_position_that_the_topic_has_not_come_to_is_refused_with_both() {
    let system = System::start(1);
    for order in ["total", "none"] {
        system.ok(&["topic", "create", order, "--order", order], b"");
        system.ok(&["publish", order], b"0\n1\n2\n");
        for transport in ["memory", "tcp"] {
            let read = |from: &str| {
                let from = ["subscribe", order, "--from", from, "--until-end"];
                system.run(&[&from[..], &["--transport", transport]].concat(), b"")
            };
            let output = read("5000");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{order} over {transport}: {said}");
            assert!(said.contains("position 5000") && said.contains("gets 3"), "{said}");
            let (two, end) = (read("2"), read("3"));
            assert_eq!((two.status.code(), text(&two.stdout).as_str()), (Some(0), "2\n"));
            assert_eq!((end.status.code(), text(&end.stdout).as_str()), (Some(0), ""));
        }
    }
}
