//! Bytes that go over, and completions.

use std::os::fd::AsFd;

use landfall_nic::{
    Access, Completion, Depths, Domain, Event, Failure, Full, How, Local, Region, Remote, Srq, What,
};
use landfall_pool::Memory;
use landfall_pool::slab::Slab;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::allocations::allocations_of;
use super::support::{
    ALL, DEPTHS, Pair, address, fill, join, listener, next_completion, pair, success, wait, words,
};

fn connected() -> Pair {
    pair(address(), DEPTHS, DEPTHS, ALL)
}

fn server_key(both: &Pair) -> u32 {
    both.server.region.remote_key()
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_write_with_a_number_lands_before_its_completion() {
    let mut both = connected();
    fill(&both.client.memory, 7);
    let key = server_key(&both);
    both.client.write(64, 4096, Remote { at: 8192, key }, Some(0xdead_beef));
    let received = success(&mut both.server.queue);
    let what = What::Received { immediate: Some(0xdead_beef), bytes: 4096 };
    assert_eq!((received.id, received.what), (0, what));
    for n in (0..4096).step_by(8) {
        assert_eq!(both.server.memory.load(8192 + n), (64 + n) ^ 7);
    }
    assert_eq!(both.server.memory.load(8184), 8184, "nothing before it");
    assert_eq!(both.server.memory.load(12288), 12288, "nothing behind it");
    let sent = success(&mut both.client.queue);
    assert_eq!((sent.id, sent.what), (64, What::Write));
    assert_eq!(both.client.queue.send_room(), DEPTHS.send);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn two_pieces_an_inline_piece_and_none_at_all() {
    let mut both = connected();
    fill(&both.client.memory, 1 << 32);
    let key = server_key(&both);
    let Pair { server, client, .. } = &mut both;
    let how = |id| How { id, signalled: true, ..How::default() };
    let region = &client.region;
    let pieces = [Local { region, at: 4096, bytes: 16 }, Local { region, at: 512, bytes: 8 }];
    client.queue.write(&pieces, Remote { at: 0, key }, None, how(1)).unwrap();
    assert_eq!(success(&mut client.queue).id, 1);
    let landed: Vec<_> = (0..3).map(|n| server.memory.load(8 * n) ^ (1 << 32)).collect();
    assert_eq!(landed, [4096, 4104, 512]);

    // Inline bytes are copied when they are posted: what comes later to their place stays here.
    let inline = How { inline: true, ..how(2) };
    client.queue.write(&pieces[1..], Remote { at: 64, key }, Some(9), inline).unwrap();
    client.memory.store(512, 0);
    assert_eq!(success(&mut client.queue).id, 2);
    assert_eq!(server.memory.load(64), 512 ^ (1 << 32));
    let received = success(&mut server.queue);
    assert_eq!(received.what, What::Received { immediate: Some(9), bytes: 8 });

    client.queue.write(&[], Remote { at: 0, key: 0 }, Some(10), how(3)).unwrap();
    let received = success(&mut server.queue);
    assert_eq!(received.what, What::Received { immediate: Some(10), bytes: 0 });
    assert_eq!(success(&mut client.queue).id, 3);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn an_inline_piece_outside_of_its_region_is_refused_by_the_nic() {
    let mut both = connected();
    let key = server_key(&both);
    let before = words(&both.server.memory);
    let client = &mut both.client;
    let outside = [Local { region: &client.region, at: client.region.bytes(), bytes: 8 }];
    let how = How { signalled: true, inline: true, ..How::default() };
    client.queue.write(&outside, Remote { at: 0, key }, None, how).unwrap();
    // Soft-RoCE calls it flushed, others a local protection error.
    let failure = next_completion(&mut client.queue).failure.expect("refused");
    assert!(!failure.is_remote_access(), "{failure}");
    assert_eq!(words(&both.server.memory), before);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_read_brings_the_other_sides_bytes() {
    let mut both = connected();
    fill(&both.server.memory, 3);
    let key = server_key(&both);
    both.client.read(1024, 2048, Remote { at: 4096, key });
    let done = success(&mut both.client.queue);
    assert_eq!((done.id, done.what), (1024, What::Read));
    for n in (0..2048).step_by(8) {
        assert_eq!(both.client.memory.load(1024 + n), (4096 + n) ^ 3);
    }
    // Both sides may: the server reads from a region that the client opens for it.
    let open =
        Access { local_write: false, remote_read: true, remote_write: false, windows: false };
    let memory = &both.client.memory;
    let region = Region::of_mapping(&both.client.domain, memory, 1024, 2048, open).unwrap();
    both.server.read(0, 8, Remote { at: 1032, key: region.remote_key() });
    assert_eq!(success(&mut both.server.queue).what, What::Read);
    assert_eq!(both.server.memory.load(0), 4104 ^ 3);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_slab_is_sent_from_and_read_from() {
    let mut both = connected();
    let key = server_key(&both);
    let slab = Slab::new(4, 4096).unwrap();
    let mut buffer = slab.take().unwrap();
    let mut other = slab.take().unwrap();
    buffer.fill(0x11);
    other.fill(0x22);
    let access =
        Access { local_write: false, remote_read: true, remote_write: false, windows: false };
    let region = Region::of_slab(&both.client.domain, &slab, access).unwrap();
    let how = How { signalled: true, ..How::default() };
    let piece = Local { region: &region, at: other.at(), bytes: 4096 };
    both.client.queue.write(&[piece], Remote { at: 4096, key }, None, how).unwrap();
    success(&mut both.client.queue);
    assert_eq!(both.server.memory.load(4096), 0x2222_2222_2222_2222);
    assert_eq!(both.server.memory.load(8184), 0x2222_2222_2222_2222);
    both.server.read(0, 4096, Remote { at: buffer.at(), key: region.remote_key() });
    success(&mut both.server.queue);
    assert_eq!(both.server.memory.load(0), 0x1111_1111_1111_1111);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_full_queue_says_so_and_loses_nothing() {
    let address = address();
    let depths = Depths { send: 8, ..DEPTHS };
    let mut both = pair(address, DEPTHS, depths, ALL);
    let key = server_key(&both);
    let (total, every) = (100, 4);
    let (mut sent, mut completed, mut full) = (0, 0, 0);
    let mut seen = Vec::new();
    let mut some = [Completion::EMPTY; 16];
    wait("all writes", || {
        while sent < total {
            let how = How { id: sent, signalled: (sent + 1) % every == 0, ..How::default() };
            let from = Local { region: &both.client.region, at: 0, bytes: 8 };
            match both.client.queue.write(&[from], Remote { at: 0, key }, Some(sent as u32), how) {
                Ok(()) => sent += 1,
                Err(Full) => {
                    full += 1;
                    break;
                }
            }
        }
        let count = both.client.queue.poll(&mut some);
        for done in &some[..count] {
            assert_eq!(done.failure, None);
            assert_eq!((done.id + 1) % every, 0, "a completion that nobody asked for");
            completed += 1;
        }
        let count = both.server.queue.poll(&mut some);
        both.server.queue.receive(count as u32).unwrap();
        for done in &some[..count] {
            let What::Received { immediate: Some(number), bytes: 8 } = done.what else {
                panic!("{done:?}")
            };
            seen.push(number);
        }
        (seen.len() as u64 == total && completed == total / every).then_some(())
    });
    assert!(full > 0, "the queue was never full");
    assert_eq!(seen, (0..total as u32).collect::<Vec<_>>());
    assert_eq!(both.client.queue.send_room(), 8);
    assert_eq!(both.server.queue.receive(1), Err(Full), "more receives than the queue is deep");
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn an_armed_queue_rings_when_a_completion_comes() {
    let mut both = connected();
    let key = server_key(&both);
    assert!(!both.server.queue.take_bells());
    both.server.queue.arm().unwrap();
    both.client.write(0, 8, Remote { at: 0, key }, Some(1));
    let patience = PollTimeout::from(60_000_u16);
    let mut ready = [PollFd::new(both.server.queue.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, patience), Ok(1), "no bell");
    assert!(both.server.queue.take_bells());
    assert!(!both.server.queue.take_bells(), "one bell, one time");
    success(&mut both.server.queue);
    assert!(matches!(next(&mut both), Event::Established(_)));
}

fn next(both: &mut Pair) -> Event {
    super::support::next_event(&mut both.listener)
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn queues_share_receives_and_the_limit_tells_when_they_run_out() {
    let address = address();
    let mut listener = listener(address);
    let device = {
        let to = listener.local_addr();
        landfall_nic::Dialing::resolve(to, super::support::deadline()).unwrap()
    };
    let domain = Domain::on(device.device_name()).unwrap();
    let shared = Srq::new(&domain, 64).unwrap();
    shared.receive(40).unwrap();
    assert_eq!(shared.receive(25), Err(Full));
    shared.arm_limit(39).unwrap();
    assert_eq!(shared.limit().unwrap(), 39);
    let depths = Depths { shared_receive: Some(&shared), ..DEPTHS };
    let (mut one, mut to_one) = join(&mut listener, depths, DEPTHS, ALL);
    let (mut two, mut to_two) = join(&mut listener, depths, DEPTHS, ALL);
    drop(device);
    for n in 0..4 {
        to_one.write(0, 8, Remote { at: 0, key: one.region.remote_key() }, Some(10 + n));
        to_two.write(0, 16, Remote { at: 0, key: two.region.remote_key() }, Some(20 + n));
    }
    for n in 0..4 {
        let what = What::Received { immediate: Some(10 + n), bytes: 8 };
        assert_eq!(success(&mut one.queue).what, what);
        let what = What::Received { immediate: Some(20 + n), bytes: 16 };
        assert_eq!(success(&mut two.queue).what, what);
    }
    wait("the limit's event", || (shared.limit().unwrap() == 0).then_some(()));
    shared.taken(8);
    shared.receive(32).unwrap();
    assert_eq!(shared.receive(1), Err(Full));
    assert_eq!(one.queue.receive(1), Err(Full), "receives of its own");
    drop((one, to_one, shared));
    drop((to_two, two, domain));
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn posting_and_polling_allocate_nothing() {
    let mut both = connected();
    let key = server_key(&both);
    let how = How { signalled: true, ..How::default() };
    let mut some = [Completion::EMPTY; 16];
    let allocations = allocations_of(|| {
        for n in 0..100 {
            let region = &both.client.region;
            let pieces = [Local { region, at: 0, bytes: 64 }, Local { region, at: 64, bytes: 8 }];
            let to = Remote { at: 0, key };
            both.client.queue.write(&pieces, to, Some(n), how).unwrap();
            both.client.queue.read(&pieces[..1], to, how).unwrap();
            let mut left = 2;
            while left > 0 {
                left -= both.client.queue.poll(&mut some);
            }
            while both.server.queue.poll(&mut some) == 0 {}
            both.server.queue.receive(1).unwrap();
            both.server.queue.arm().unwrap();
            both.server.queue.take_bells();
        }
    });
    assert_eq!(allocations, 0);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn failures_are_told_apart() {
    let failure = Failure { status: 12, vendor: 0 };
    assert!(failure.is_retry_exceeded() && !failure.is_remote_access() && !failure.is_flush());
}
