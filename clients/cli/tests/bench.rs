//! The demo and the benchmarks, each with a system of its own.

mod common;

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use common::{System, landfall, signal, text, until};

#[test]
fn the_demo_passes_over_a_small_folder() {
    let dir = std::env::temp_dir().join(format!("landfall-demo-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    for number in 0..50_usize {
        std::fs::write(dir.join(format!("sub/{number}")), vec![number as u8; number * 997])
            .unwrap();
    }
    let output = landfall()
        .arg("demo")
        .arg(&dir)
        .args(["-o", "json", "--pool-bytes", "256M", "--chunk-bytes", "1K"])
        .output()
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["pass"], true);
    assert_eq!((&document["files"], &document["files_skipped"]), (&50.into(), &0.into()));
    assert_eq!(document["bytes"], 997 * (49 * 50) / 2);
    assert_eq!(document["publishers"], serde_json::json!(["memory", "tcp", "memory", "tcp"]));
    assert_eq!(document["subscribers"], serde_json::json!(["memory", "tcp"]));
}

/// What a benchmark prints.
fn bench(arguments: &[&str]) -> Value {
    let mut command = landfall();
    command.arg("bench").args(arguments).args(["--pool-bytes", "256M", "-o", "json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_benchmarks_print_their_fields_and_verify_what_they_moved() {
    let rates = ["bytes_per_second", "messages_per_second", "limit_bytes_per_second", "ratio"];
    let moves = |document: &Value| rates.iter().all(|rate| document[rate].as_f64() > Some(0.0));
    for transport in ["memory", "tcp"] {
        for more in [&[][..], &["--publish-only"], &["--publishers", "2", "--brokers", "2"]] {
            let run = |seconds| {
                let words = ["bw", "--warmup", "0.1", "--transport", transport];
                bench(&[&words[..], &["--seconds", seconds], more].concat())
            };
            // Nothing may arrive within a short time where a machine has much else to do.
            let document = ["0.2", "2", "20"].into_iter().map(run).find(moves);
            let document = document.expect("a run that moved something");
            assert!(document["limit"].is_string());
            let published = &document["published_messages"];
            if more.contains(&"--publish-only") {
                assert_eq!(&document["acknowledged_messages"], published);
            } else {
                assert_eq!(&document["verified_messages"], published);
            }
        }
        let words = ["--transport", transport, "--seconds", "0.2", "--warmup", "0"];
        let document = bench(&[&["lat", "--rate", "500"], &words[..]].concat());
        let fields = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"];
        let values: Vec<u64> = fields.iter().map(|f| document[f].as_u64().unwrap()).collect();
        assert!(values[0] > 0 && values.is_sorted(), "{document}");
        assert!(document["rate_reached"].as_f64().unwrap() > 0.0);
        assert_eq!(document["cut_short"], false);
    }
}

#[test]
fn a_benchmark_of_somebodys_system_leaves_no_topic_behind() {
    let system = System::start(1);
    let bench = ["bench", "bw", "--seconds", "0.1", "--warmup", "0", "-o", "json"];
    assert_eq!(system.json(&bench)["schema_version"], 1);
    let topics = system.json(&["topic", "ls", "-o", "json"]);
    assert_eq!(topics["topics"], serde_json::json!([]));
}

#[test]
fn a_rate_that_is_beyond_its_power_is_said_with_the_one_that_was_reached() {
    let bench = |format: &str| {
        landfall()
            .args(["bench", "lat", "--seconds", "0.2", "--warmup", "0", "--pool-bytes", "256M"])
            .args(["--rate", "10000000", "-o", format])
            .output()
            .unwrap()
    };
    let document: Value = serde_json::from_slice(&bench("json").stdout).unwrap();
    assert_eq!(document["rate_was_reached"], false);
    let reached = document["rate_reached"].as_f64().unwrap();
    assert!((1.0..9e6).contains(&reached), "{document}");
    let table = text(&bench("table").stdout);
    assert!(table.contains("of 10000000 that were asked for: THE RATE WAS NOT REACHED"), "{table}");
}

#[test]
fn a_benchmark_of_durable_batches_has_a_disk_and_leaves_nothing_there() {
    let data = std::env::temp_dir().join(format!("landfall-durable-{}", std::process::id()));
    std::fs::create_dir_all(&data).unwrap();
    for level in ["durable", "replicated"] {
        let bench = ["bench", "bw", "--ack", level, "--seconds", "0.2", "--warmup", "0.1"];
        let output = landfall().args(bench).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--data DIR") && said.contains(level), "{said}");
        let common = ["--pool-bytes", "256M", "-o", "json", "--publish-only", "--data"];
        let output = landfall().args(bench).args(common).arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["parameters"]["ack"], level);
        assert_eq!(document["acknowledged_messages"], document["published_messages"]);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    }
    std::fs::remove_dir(data).unwrap();
}

#[test]
fn a_benchmark_that_a_signal_ends_prints_what_there_is() {
    let system = System::start(1);
    for (which, least) in [("lat", 100), ("bw", 100_000)] {
        let bench = ["bench", which, "--seconds", "3600", "--warmup", "0", "-o", "json"];
        let mut command = system.command(&bench);
        let bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it measures", || {
            let topics = system.json(&["topic", "ls", "-o", "json"]);
            topics["topics"][0]["messages"].as_u64().is_some_and(|count| count > least)
        });
        signal(bench.id(), Signal::SIGINT);
        let output = bench.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{which}: {said}");
        assert!(said.contains("cut short"), "{which}: {said}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["cut_short"], true, "{which}");
        assert!(document["measured_seconds"].as_f64().unwrap() < 3600.0, "{which}");
        assert!(document["verified_messages"].as_u64().unwrap() > 0, "{which}");
        let topics = system.json(&["topic", "ls", "-o", "json"]);
        assert_eq!(topics["topics"], serde_json::json!([]), "{which}");
    }
}
