//! The HTTP API over real sockets.

mod fake;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;

use axum::Router;
use fake::{Broker, System};
use landfall_control::election::NotElected;
use landfall_control::http::{Hosts, Listeners, StandingBy, router, serve, standing_by};
use landfall_layout::command::Command;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

/// A server in a thread of its own; it stops when the sender is dropped.
fn start(system: &System, unix: Option<String>) -> (SocketAddr, oneshot::Sender<()>) {
    let asker = system.asker.clone();
    serving(unix, move || router(asker))
}

fn serving(
    unix: Option<String>,
    router: impl FnOnce() -> Router + Send + 'static,
) -> (SocketAddr, oneshot::Sender<()>) {
    let (told, address) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bound = Listeners::bind("127.0.0.1:0", unix.as_deref(), Hosts::here(&[]));
            let listeners = bound.await.unwrap();
            told.send(listeners.address().unwrap()).unwrap();
            let until = async { drop(stopped.await) };
            serve(listeners, router(), until).await.unwrap();
        });
    });
    (address.recv().unwrap(), stop)
}

/// One request on a connection of its own: the status and the body.
fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    write!(
        stream,
        "{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn topics_are_made_described_and_deleted() {
    let system = System::start(64);
    let (address, _stop) = start(&system, None);
    let ask = |method: &str, path: &str, body: &str| {
        exchange(TcpStream::connect(address).unwrap(), method, path, body)
    };
    let (status, made) = ask("POST", "/v1/topics", r#"{"name":"a.b","order":"stream"}"#);
    assert_eq!((status, &made["order"], &made["replicas"]), (201, &"stream".into(), &1.into()));
    let keys: Vec<&str> = made.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 22, "{keys:?}");
    assert_eq!(ask("GET", "/v1/topics/a.b", ""), (200, made.clone()));
    let (status, listed) = ask("GET", "/v1/topics", "");
    assert_eq!((status, &listed["schema_version"], &listed["topics"][0]), (200, &1.into(), &made));
    let (status, deleted) = ask("DELETE", "/v1/topics/a.b", "");
    assert_eq!((status, &deleted["deleted"]), (200, &"a.b".into()));
    assert_eq!(ask("GET", "/v1/topics/a.b", "").0, 404);
    assert_eq!(ask("DELETE", "/v1/topics/a.b", "").0, 404);
}

#[test]
fn bad_input_is_refused_with_a_sentence_and_disturbs_nobody() {
    let system = System::start(64);
    let (address, _stop) = start(&system, None);
    let refused_with = |status: u16, body: &str| {
        let stream = TcpStream::connect(address).unwrap();
        let (is, answer) = exchange(stream, "POST", "/v1/topics", body);
        assert_eq!(is, status, "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    let refused = |body: &str| refused_with(400, body);
    assert!(refused("").contains("is not a topic"));
    assert!(refused("[").contains("is not a topic"));
    assert!(refused(r#"{"name":"a"}"#).contains("order"));
    assert!(refused(r#"{"name":"a","order":"total","colour":"red"}"#).contains("colour"));
    assert!(refused(r#"{"name":"a","order":"sorted"}"#).contains("none, broker, total"));
    assert!(refused(r#"{"name":"a b","order":"total"}"#).contains("byte 1"));
    assert!(refused(r#"{"name":"","order":"total"}"#).contains("at least one"));
    // Nothing is wrong with it, once there are disks.
    let two = refused_with(503, r#"{"name":"a","order":"total","replicas":2}"#);
    assert!(two.contains("--data"), "{two}");
    assert!(refused(r#"{"name":"a","order":"total","ring_slots":17}"#).contains("17"));
    let long = format!(r#"{{"name":"{}","order":"total"}}"#, "n".repeat(121));
    assert!(refused(&long).contains("121"));
    let stream = TcpStream::connect(address).unwrap();
    assert_eq!(exchange(stream, "PATCH", "/v1/topics", "").0, 405);
    let stream = TcpStream::connect(address).unwrap();
    assert_eq!(exchange(stream, "GET", "/v1/nothing", "").0, 404);
    for (method, path) in [("GET", "/v1/topics/%ff"), ("DELETE", "/v1/brokers/%ff")] {
        let (status, body) = exchange(TcpStream::connect(address).unwrap(), method, path, "");
        assert_eq!(
            (status, &body["error"]["code"]),
            (400, &"bad_request".into()),
            "{path}: {body}"
        );
    }
    let mut rude = TcpStream::connect(address).unwrap();
    rude.write_all(b"\x16\x03\x01 no HTTP at all\r\n\r\n").unwrap();
    drop(rude);
    let (status, topics) = exchange(TcpStream::connect(address).unwrap(), "GET", "/v1/topics", "");
    assert_eq!((status, topics["topics"].as_array().unwrap().len()), (200, 0));
}

#[test]
fn the_cluster_and_its_counters_are_told_over_both_sockets() {
    let system = System::start(64);
    let name = format!("landfall-test/{}", system.pool.uuid_text());
    let (address, _stop) = start(&system, Some(format!("@{name}")));
    let mut broker = Broker::register(&system.pool, 5, 1);
    let topic = system.topic("a", "total");
    broker.open_ring(topic);
    let connect = || {
        let name = unix::SocketAddr::from_abstract_name(&name).unwrap();
        unix::UnixStream::connect_addr(&name).unwrap()
    };
    let (status, health) = exchange(connect(), "GET", "/v1/health", "");
    assert_eq!((status, &health["ready"], &health["brokers"]), (200, &true.into(), &1.into()));
    let tcp = || TcpStream::connect(address).unwrap();
    let (_, cluster) = exchange(tcp(), "GET", "/v1/cluster", "");
    let shown = &cluster["brokers"][0];
    assert_eq!((&shown["broker"], &shown["state"]), (&5.into(), &"serving".into()));
    assert_eq!((&shown["tcp"], &shown["unix"]), (&"127.0.0.1:9".into(), &"@nowhere".into()));
    assert_eq!(cluster["pool"]["segment_bytes"], 2 << 20);
    assert_eq!(cluster["pool"]["coherence"], "coherent");
    let (_, counters) = exchange(tcp(), "GET", "/v1/counters", "");
    let processes = counters["processes"].as_array().unwrap();
    let names: Vec<&str> = processes.iter().map(|p| p["process"].as_str().unwrap()).collect();
    assert_eq!(names, ["broker-5", "control"]);
    assert!(processes[1]["counters"]["segments_granted_total"].as_u64().unwrap() >= 2);
    let latency = &processes[1]["latencies"]["landed_to_ordered"];
    assert!(latency["buckets"].is_array() && latency["count"].is_u64(), "{latency}");
    let (status, errors) = exchange(tcp(), "GET", "/v1/errors", "");
    assert_eq!((status, errors["errors"].as_array().unwrap().len()), (200, 0));
}

#[test]
fn a_web_page_gets_nothing_done() {
    let system = System::start(64);
    let (address, _stop) = start(&system, None);
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let body = r#"{"name":"a","order":"total"}"#;
        let length = body.len();
        write!(stream, "{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let json = "content-type: application/json\r\n";
    let create = "POST /v1/topics HTTP/1.1\r\nhost: 127.0.0.1\r\n";
    let led_here = "POST /v1/topics HTTP/1.1\r\nhost: evil.example:7400\r\n";
    for (head, status, code) in [
        (format!("{create}origin: http://evil.example\r\n{json}"), 403, "foreign_origin"),
        (format!("{create}content-type: text/plain\r\n"), 415, "not_json"),
        (create.to_owned(), 415, "not_json"),
        (format!("{led_here}{json}"), 421, "unknown_host"),
        ("GET /v1/topics HTTP/1.1\r\nhost: evil.example\r\n".to_owned(), 421, "unknown_host"),
    ] {
        let answer = ask(&head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert!(answer.contains(code), "{head}: {answer}");
    }
    let tcp = || TcpStream::connect(address).unwrap();
    let (_, topics) = exchange(tcp(), "GET", "/v1/topics", "");
    assert_eq!(topics["topics"].as_array().unwrap().len(), 0);
    assert!(ask(&format!("{create}{json}")).starts_with("HTTP/1.1 201 "));
}

#[test]
fn a_token_is_with_its_broker_before_the_answer() {
    let system = System::start(64);
    let (address, _stop) = start(&system, None);
    let ask =
        |path: &str, body: &str| exchange(TcpStream::connect(address).unwrap(), "POST", path, body);
    let topic = system.topic("t", "strong");
    let (status, refused) = ask("/v1/topics/t/tokens", r#"{"broker":0}"#);
    assert_eq!((status, refused["error"]["message"].as_str()), (404, Some("no broker 0 serves")));
    let mut broker = Broker::register(&system.pool, 0, 77);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (status, made) = ask("/v1/topics/t/tokens", r#"{"broker":0}"#);
        assert_eq!(
            (status, &made["topic"], &made["verbs"]),
            (201, &topic.0.into(), &"127.0.0.1:10".into())
        );
        let expected = broker.find(|command| match command {
            Command::Expect { topic, token, .. } => Some((topic, format!("{token:032x}"))),
            _ => None,
        });
        assert_eq!(expected, Some((topic, made["token"].as_str().unwrap().to_owned())));
        seen.push(made["token"].clone());
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(ask("/v1/topics/none/tokens", r#"{"broker":0}"#).0, 404);
    assert_eq!(ask("/v1/topics/t/tokens", r#"{"broker":0,"x":1}"#).0, 400);
}

/// The one that led when it began may be gone.
#[test]
fn a_control_that_stands_by_names_who_leads_by_now() {
    let led = |epoch, pid: u64| {
        let ip = if epoch < 3 { "127.0.0.1" } else { "::1" };
        let http = Some(SocketAddr::new(ip.parse().unwrap(), pid as u16));
        let why = NotElected::Led { epoch, pid, http, beats: true };
        StandingBy { why: why.while_standing_by(), leader: why.leader() }
    };
    let (tell, told) = watch::channel(led(1, 12_108));
    let (address, _stop) = serving(None, move || standing_by(told));
    let ask = || {
        let stream = TcpStream::connect(address).unwrap();
        let (status, body) = exchange(stream, "GET", "/v1/health", "");
        let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        (status, text("message") + " " + &text("leader"))
    };
    let (status, text) = ask();
    assert_eq!(status, 503);
    assert!(text.contains("in epoch 1, as process 12108"), "{text}");
    assert!(text.ends_with(" http://127.0.0.1:12108"), "{text}");
    // It was started so.
    assert!(!text.contains("--standby"), "{text}");
    tell.send(led(2, 34)).unwrap();
    let (_, text) = ask();
    assert!(text.contains("in epoch 2, as process 34"), "{text}");
    assert!(text.ends_with(" http://127.0.0.1:34"), "{text}");
    tell.send(led(3, 56)).unwrap();
    let (_, text) = ask();
    assert!(text.ends_with(" http://[::1]:56"), "{text}");
}
