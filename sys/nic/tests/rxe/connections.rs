//! Devices, connections, private data.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use landfall_nic::{
    Access, Depths, Dialing, Ending, Event, GidKind, How, Link, Listener, NicError, Queue, Refused,
    Region, Remote, Unavailable, What, devices,
};
use landfall_pool::Mapping;
use landfall_pool::map::{Backing, memfd};
use landfall_pool::slab::Slab;

use super::support::{
    ALL, DEPTHS, address, deadline, listener, mapping, next_event, next_request, pair, success,
    wait,
};

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn every_device_tells_its_ports_addresses_and_limits() {
    let address = address();
    let found = devices().unwrap();
    let owner = found
        .iter()
        .find(|d| d.ports.iter().flat_map(|p| &p.gids).any(|gid| gid.ip == Some(address)))
        .expect("some device has the address");
    assert_eq!(owner.trouble, None);
    assert!(!owner.driver.is_empty(), "{owner:?}");
    assert!(owner.windows_2b, "windows of type 2B are what the transport is fenced with");
    for (what, limit) in [
        ("queue pairs", owner.max_qp),
        ("work requests", owner.max_qp_wr),
        ("completions", owner.max_cqe),
        ("regions", owner.max_mr),
        ("windows", owner.max_mw),
        ("reads", owner.max_rd_atom),
        ("pieces", owner.max_sge),
        ("domains", owner.max_pd),
    ] {
        assert!(limit > 1, "{what}: {limit}");
    }
    let port = owner.ports.iter().find(|p| p.gids.iter().any(|g| g.ip == Some(address))).unwrap();
    assert_eq!(port.link, Link::Ethernet);
    assert!(port.mtu >= 1024 && port.mtu <= port.mtu_max, "{port:?}");
    let gid = port.gids.iter().find(|gid| gid.ip == Some(address)).unwrap();
    assert_eq!(gid.kind, GidKind::RoceV2);
    assert!(gid.interface.is_some(), "{gid:?}");
    println!("{owner:#?}");
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn private_data_goes_both_ways() {
    let address = address();
    let mut listener = listener(address);
    let to = listener.local_addr();
    thread::scope(|scope| {
        let dial = scope.spawn(move || {
            let dialing = Dialing::resolve(to, deadline()).unwrap();
            assert!(dialing.port_mtu() >= 256);
            let domain = dialing.domain().unwrap();
            let ask: Vec<u8> = (1..=56).collect();
            let mut seen = Vec::new();
            let mtu = |answer: &[u8]| {
                seen = answer.to_vec();
                512
            };
            let (queue, answer) =
                dialing.connect(&domain, DEPTHS, &ask, |_| Ok(()), mtu, deadline()).unwrap();
            assert_eq!(seen, answer, "the MTU is read out of the acceptance");
            assert_eq!(queue.mtu(), 512);
            assert_eq!(queue.peer(), to);
            (queue, answer)
        });
        let request = next_request(&mut listener);
        assert_eq!(request.private, (1..=56).collect::<Vec<u8>>());
        assert_eq!(request.peer.ip(), address);
        let id = request.id();
        let domain = request.domain().unwrap();
        assert_eq!(domain.device_name(), request.device_name());
        // The control is asked in between, which takes its time.
        thread::sleep(Duration::from_millis(300));
        let say: Vec<u8> = (0..196).collect();
        let queue = request.accept(&domain, DEPTHS, 512, &say, |_| Ok(())).unwrap();
        assert_eq!((queue.id(), queue.mtu()), (id, 512));
        let (client, answer) = dial.join().unwrap();
        assert_eq!(answer[..196], say);
        assert!(client.inline_bytes() >= DEPTHS.inline);
        match next_event(&mut listener) {
            Event::Established(established) => assert_eq!(established, id),
            _ => panic!("something else than the connection"),
        }
        drop(client);
        match next_event(&mut listener) {
            Event::Ended(ended, how) => assert_eq!((ended, how), (id, Ending::Disconnected)),
            _ => panic!("something else than the end"),
        }
    });
}

fn refusal(to: SocketAddr) -> Vec<u8> {
    let dialing = Dialing::resolve(to, deadline()).unwrap();
    let domain = dialing.domain().unwrap();
    let refused = dialing.connect(&domain, DEPTHS, b"please", |_| Ok(()), |_| 4096, deadline());
    match refused {
        Err(Refused::Rejected(private)) => private,
        Err(Refused::Failed(error)) => panic!("not rejected: {error}"),
        Ok(_) => panic!("connected"),
    }
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_rejection_carries_its_reason_and_silence_is_one_too() {
    let address = address();
    let mut listener = listener(address);
    let to = listener.local_addr();
    thread::scope(|scope| {
        let dial = scope.spawn(move || refusal(to));
        let request = next_request(&mut listener);
        assert_eq!(request.private[..7], *b"please\0");
        request.reject(b"the token was used before").unwrap();
        assert!(dial.join().unwrap().starts_with(b"the token was used before\0"));

        let dial = scope.spawn(move || refusal(to));
        drop(next_request(&mut listener));
        assert_eq!(dial.join().unwrap(), b"");
    });
    drop(listener);
    assert_eq!(refusal(to), b"", "nobody listens any more");
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn an_answer_that_does_not_come_is_an_error_in_time() {
    let address = address();
    let mut listener = listener(address);
    let dialing = Dialing::resolve(listener.local_addr(), deadline()).unwrap();
    let domain = dialing.domain().unwrap();
    let soon = Instant::now() + Duration::from_millis(300);
    let refused = dialing.connect(&domain, DEPTHS, &[], |_| Ok(()), |_| 4096, soon);
    match refused {
        Err(Refused::Failed(error)) => {
            assert_eq!(error.source.kind(), std::io::ErrorKind::TimedOut, "{error}");
        }
        Err(refused) => panic!("{refused}"),
        Ok(_) => panic!("connected to one who did not answer"),
    }
    // The request of one who has given up can still be looked at and answered; it comes to
    // nothing, and to no harm.
    let request = next_request(&mut listener);
    let domain = request.domain().unwrap();
    let _ = request.accept(&domain, DEPTHS, 4096, &[], |_| Ok(()));
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn an_address_that_no_device_has_is_refused_with_those_that_one_has() {
    let address = address();
    let Err(error) = Listener::bind("192.0.2.1:0".parse().unwrap(), 1) else {
        panic!("listening at an address that nobody has");
    };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let error: NicError = Unavailable::NoDevice.into();
    assert!(error.to_string().contains("no RDMA here"), "{error}");
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn what_does_not_fit_is_refused_with_the_numbers() {
    let address = address();
    let mut listener = listener(address);
    let to = listener.local_addr();
    let dialing = Dialing::resolve(to, deadline()).unwrap();
    let domain = dialing.domain().unwrap();
    let refused = dialing.connect(&domain, DEPTHS, &[1; 57], |_| Ok(()), |_| 4096, deadline());
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("57 bytes") && said.contains("room for 56"), "{said}");

    let dialing = Dialing::resolve(to, deadline()).unwrap();
    let deep = Depths { send: u32::MAX / 2, ..DEPTHS };
    let refused = dialing.connect(&domain, deep, &[], |_| Ok(()), |_| 4096, deadline());
    assert!(matches!(refused, Err(Refused::Failed(_))));
    assert!(listener.next().unwrap().is_none(), "a request for a queue that was not made");
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn memory_is_registered_within_its_bounds_and_rights_only() {
    let address = address();
    let listener = listener(address);
    let dialing = Dialing::resolve(listener.local_addr(), deadline()).unwrap();
    let domain = dialing.domain().unwrap();
    let memory = mapping(8192);
    for (at, bytes) in [(0, 0), (0, 8193), (8192, 1), (u64::MAX, 2)] {
        let refused = Region::of_mapping(&domain, &memory, at, bytes, ALL).err().unwrap();
        assert!(refused.to_string().contains(&format!("{bytes} bytes at {at}")), "{refused}");
    }
    let far = Access { local_write: false, ..ALL };
    assert!(Region::of_mapping(&domain, &memory, 0, 8192, far).is_err());
    let region = Region::of_mapping(&domain, &memory, 4096, 4096, ALL).unwrap();
    assert_eq!((region.at(), region.bytes()), (4096, 4096));

    let fd = memfd("nic-test", 4096).unwrap();
    let fixed = std::sync::Arc::new(Mapping::new(fd, 4096, Backing::Shmem, false).unwrap());
    assert!(Region::of_mapping(&domain, &fixed, 0, 4096, ALL).is_err());

    let slab = Slab::new(2, 4096).unwrap();
    assert!(Region::of_slab(&domain, &slab, ALL).is_err(), "a NIC that writes to a slab");
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_request_outlives_its_listener() {
    let address = address();
    let mut listener = listener(address);
    let to = listener.local_addr();
    thread::scope(|scope| {
        let dial = scope.spawn(move || {
            let dialing = Dialing::resolve(to, deadline()).unwrap();
            let domain = dialing.domain().unwrap();
            dialing.connect(&domain, DEPTHS, &[], |_| Ok(()), |_| 4096, deadline()).unwrap()
        });
        let request = next_request(&mut listener);
        drop(listener);
        let domain = request.domain().unwrap();
        let before = |queue: &mut Queue| {
            queue.receive(1).expect("an empty queue has room");
            Ok(())
        };
        let mut server = request.accept(&domain, DEPTHS, 4096, &[], before).unwrap();
        let (mut client, _) = dial.join().unwrap();
        let how = How { signalled: true, ..How::default() };
        client.write(&[], Remote { at: 0, key: 0 }, Some(4), how).unwrap();
        let what = What::Received { immediate: Some(4), bytes: 0 };
        assert_eq!(success(&mut server).what, what);
    });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_listener_at_every_address_takes_requests_for_one() {
    let address = address();
    let mut listener = Listener::bind("0.0.0.0:0".parse().unwrap(), 8).unwrap();
    let to = SocketAddr::new(address, listener.local_addr().port());
    thread::scope(|scope| {
        let dial = scope.spawn(move || refusal(to));
        let request = next_request(&mut listener);
        assert!(!request.device_name().is_empty());
        assert!(request.port_mtu() >= 256);
        request.reject(b"no").unwrap();
        assert!(dial.join().unwrap().starts_with(b"no\0"));
    });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_client_sees_the_end_of_its_connection() {
    let address = address();
    let mut both = pair(address, DEPTHS, DEPTHS, ALL);
    assert!(!both.client.queue.ended());
    let stop = |queue: &mut Queue| {
        queue.stop();
        queue.stop();
    };
    stop(&mut both.server.queue);
    wait("the end", || both.client.queue.ended().then_some(()));
    assert!(both.server.queue.is_over());
    assert!(both.server.queue.receive(1).is_err());
}
