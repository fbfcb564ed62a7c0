//! Clients of the HTTP API that take connections and say nothing, or not enough.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use landfall_control::http::{Bounds, Hosts, Listeners, serve_within};
use tokio::sync::Notify;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than the sockets of both sides take.
const MUCH: usize = 64 << 20;

/// A server in a thread of its own, for as long as the test; what lets `/slow` answer, and what
/// says that it was asked.
fn serving(bounds: Bounds) -> (SocketAddr, Arc<Notify>, Receiver<()>) {
    let (told, address) = channel();
    let (asked, is_asked) = channel();
    let go = Arc::new(Notify::new());
    let slow = Arc::clone(&go);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let waits = move || async move {
            let _ = asked.send(());
            slow.notified().await;
            "slow"
        };
        let router = Router::new()
            .route("/quick", get(|| async { "quick" }))
            .route("/long", post(|body: Bytes| async move { body }))
            .route("/much", get(|| async { vec![b'x'; MUCH] }))
            .route("/slow", get(waits));
        runtime.block_on(async {
            let listeners = Listeners::bind("127.0.0.1:0", None, Hosts::here(&[])).await.unwrap();
            told.send(listeners.address().unwrap()).unwrap();
            serve_within(listeners, router, bounds, std::future::pending()).await.unwrap();
        });
    });
    (address.recv().unwrap(), go, is_asked)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = connect(address);
    write!(stream, "{head}\r\n\r\n").unwrap();
    stream
}

/// All that comes until the end of the connection, however it ends.
fn all_of(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => bytes,
    }
}

fn is_well(stream: TcpStream, body: &str) {
    let text = String::from_utf8(all_of(stream)).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with(body), "{text:?}");
}

const QUICK: &str = "GET /quick HTTP/1.1\r\nhost: localhost\r\nconnection: close";

#[test]
fn whoever_asks_at_once_is_answered_beside_many_who_do_not() {
    let (address, go, asked) = serving(Bounds { most: 8, rest: Duration::from_secs(3600) });
    let slow = ask(address, "GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close");
    asked.recv().unwrap();
    let mut idle = Vec::new();
    for number in 0..80 {
        let mut stream = connect(address);
        let part: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /quick HTTP/1.1\r\nhos",
            2 => {
                b"POST /long HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   content-length: 10\r\n\r\nfive!"
            }
            _ => b"GET /quick HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        stream.write_all(part).unwrap();
        idle.push(stream);
        is_well(ask(address, QUICK), "quick");
    }
    // The first are gone, whatever they had begun, and nobody that control works for.
    for stream in idle.drain(..60) {
        all_of(stream);
    }
    go.notify_one();
    is_well(slow, "slow");
}

#[test]
fn who_rests_for_too_long_goes() {
    let (address, go, asked) = serving(Bounds { most: 8, rest: Duration::from_millis(300) });
    let slow = ask(address, "GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close");
    asked.recv().unwrap();
    assert_eq!(all_of(connect(address)), b"");
    let half = ask(
        address,
        "POST /long HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 10",
    );
    assert_eq!(all_of(half), b"");
    // Who does not take the answer.
    let much = ask(address, "GET /much HTTP/1.1\r\nhost: localhost\r\nconnection: close");
    thread::sleep(Duration::from_secs(1));
    assert!(all_of(much).len() < MUCH, "its answer was kept for it");
    go.notify_one();
    is_well(slow, "slow");
}

#[test]
fn where_control_works_for_all_nobody_more_is_let_in() {
    let (address, go, asked) = serving(Bounds { most: 2, rest: Duration::from_secs(3600) });
    let head = "GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close";
    let slow = [ask(address, head), ask(address, head)];
    slow.iter().for_each(|_| asked.recv().unwrap());
    assert_eq!(all_of(connect(address)), b"");
    for stream in slow {
        go.notify_one();
        is_well(stream, "slow");
    }
    is_well(ask(address, QUICK), "quick");
}
