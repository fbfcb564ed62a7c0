//! Which transport is taken, and what is said where the one that was asked for cannot be.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{broker_of, welcome};
use landfall::{Client, Error, From, GrantMode, Transport};
use landfall_layout::frame::{Carrier, Frame};
use landfall_layout::topic::Order;

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
    let subscriber = client.subscriber("topic").from(From::Earliest).build().unwrap();
    assert_eq!(subscriber.transport(), Transport::Tcp);
    script.join().unwrap();
}

#[test]
fn a_hello_that_was_heard_counts_though_the_next_way_finds_nobody() {
    // A port on which nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
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
