//! Which transport is taken, and what is said where the one that was asked for cannot be.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{broker_of, welcome};
use landfall::{Client, Error, GrantMode, Start, Transport};
use landfall_layout::frame::{Carrier, FRAME_BYTES, Frame};
use landfall_layout::topic::Order;

/// A port that nobody may listen on.
const NOBODY: &str = "127.0.0.1:0";
/// An address where no RDMA device is.
const NOWHERE: &str = "192.0.2.1:4791";

fn publisher(client: &Client, transport: Transport) -> Result<landfall::Publisher, Error> {
    let builder = client.publisher("topic").client_id(7).transport(transport);
    builder.grant(GrantMode::Window).timeout(Duration::from_secs(10)).build()
}

#[test]
fn auto_falls_back_to_tcp_where_verbs_cannot_be_had() {
    let (client, script) = broker_of(NOWHERE, |connections| {
        let (mut peer, hello) = connections.greet();
        assert_eq!(hello.carrier, Carrier::Stream);
        peer.send(Frame::Welcome(welcome(Order::Strong, 1, 0)));
        assert_eq!(peer.order_all(0), [0]);
        let (mut peer, hello) = connections.greet();
        assert_eq!(hello.carrier, Carrier::Stream);
        peer.send(Frame::Welcome(welcome(Order::Strong, 0, 0)));
    });
    let mut publisher = publisher(&client, Transport::Auto).unwrap();
    assert_eq!(publisher.transport(), Transport::Tcp);
    publisher.publish(b"x").unwrap();
    publisher.close().unwrap();
    let subscriber = client.subscriber("topic").from(Start::Earliest).build().unwrap();
    assert_eq!(subscriber.transport(), Transport::Tcp);
    script.join().unwrap();
}

/// As for a reader of memory in a network of its own that makes a detour.
#[test]
fn a_stream_goes_over_the_hosts_socket_where_nobody_can_be_reached_by_tcp() {
    let folder = std::env::temp_dir().join(format!("landfall-stream-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("broker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let heard = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut bytes = [0; FRAME_BYTES];
        std::io::Read::read_exact(&mut peer, &mut bytes).unwrap();
        let Ok((Frame::Hello(hello), _)) = Frame::decode(bytes) else { panic!("no hello") };
        hello.carrier
    });
    let client = common::control_of(NOBODY, path.to_str().unwrap(), "");
    assert!(publisher(&client, Transport::Tcp).is_err(), "it hears nothing");
    assert_eq!(heard.join().unwrap(), Carrier::Stream);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_hello_that_was_heard_counts_though_the_next_way_finds_nobody() {
    let held = common::nobody();
    let nobody = held.local_addr().unwrap();
    let (pool, _fd) = common::pool::pool();
    let broker_pool = Arc::clone(&pool);
    let (client, script) = common::pool::broker_of(&nobody.to_string(), move |connections| {
        drop(connections.publisher(&broker_pool, 1, 0));
        // It asked for epoch 2 and is gone before it could say so.
        drop(connections.greet());
        let mut peer = connections.publisher(&broker_pool, 3, 0);
        while peer.next() != Some(Frame::Bye) {}
        peer.send(Frame::Bye);
    });
    let mut publisher = publisher(&client, Transport::Auto).unwrap();
    assert_eq!(publisher.transport(), Transport::Memory);
    while publisher.stats().reconnects == 0 {
        publisher.poll().unwrap();
    }
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn verbs_that_were_asked_for_and_cannot_be_had_say_why_and_what_to_do() {
    let (client, script) = broker_of(NOWHERE, |_| {});
    let publishing = publisher(&client, Transport::Verbs).err().unwrap();
    let builder = client.subscriber("topic").transport(Transport::Verbs);
    let subscribing = builder.one_sided(true).build().err().unwrap();
    let here = landfall::local::rdma_address().is_ok();
    for error in [publishing, subscribing] {
        let text = error.to_string();
        if here {
            // This machine has RDMA, and control gives out no token.
            assert!(matches!(error, Error::Control { status: 409, .. }), "{text}");
            assert!(text.contains("broker 0 has no RDMA"), "{text}");
        } else {
            assert!(matches!(error, Error::NoRdma { .. }), "{text}");
            assert!(text.contains("no RDMA here: "), "{text}");
            assert!(text.contains("landfall doctor") && text.contains("tcp"), "{text}");
        }
    }
    script.join().unwrap();
}

#[test]
fn transports_and_grants_have_words() {
    for transport in [Transport::Auto, Transport::Memory, Transport::Verbs, Transport::Tcp] {
        assert_eq!(transport.to_string().parse(), Ok(transport));
    }
    let error = "rdma".parse::<Transport>().unwrap_err().to_string();
    assert!(error.contains("auto, memory, verbs, tcp"), "{error}");
    for grant in [GrantMode::Window, GrantMode::Open, GrantMode::Pull] {
        assert_eq!(grant.to_string().parse(), Ok(grant));
    }
}
