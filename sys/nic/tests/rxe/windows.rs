//! What windows let in, and what the NIC keeps out.

use landfall_nic::{Dialing, Full, How, Local, Queue, Region, Remote, Rights, What, Window};
use landfall_pool::Memory;

use super::support::{
    DEPTHS, LOCAL, MEMORY_BYTES, Pair, Side, WINDOWED, address, deadline, fill, join, listener,
    mapping, next_completion, next_request, pair, success, words,
};

const AT: u64 = 4096;
const BYTES: u64 = 8192;
const WRITE: Rights = Rights { read: false, write: true };

fn signalled() -> How {
    How { signalled: true, ..How::default() }
}

fn bind(side: &mut Side, window: &mut Window, at: u64, rights: Rights) -> u32 {
    let key = side.queue.bind(window, &side.region, at, BYTES, rights, signalled()).unwrap();
    assert_eq!(success(&mut side.queue).what, What::Bind);
    assert_eq!(window.remote_key(), key);
    key
}

fn invalidate(queue: &mut Queue, window: &mut Window) {
    queue.invalidate(window, signalled()).unwrap();
    assert_eq!(success(queue).what, What::Invalidate);
}

/// What a client may try.
enum Try {
    Write { at: u64, bytes: u32, key: u32 },
    Read { at: u64, bytes: u32, key: u32 },
}

/// A client whose try is refused: its queue ends with a remote access error, the server's memory
/// is as it was, and another client's write goes through.
#[track_caller]
fn refused(why: &str, both: &mut Pair, other: &mut (Side, Side, u32), attempt: Try) {
    let before = words(&both.server.memory);
    fill(&both.client.memory, 0xbad << 40);
    match attempt {
        Try::Write { at, bytes, key } => both.client.write(0, bytes, Remote { at, key }, Some(1)),
        Try::Read { at, bytes, key } => both.client.read(0, bytes, Remote { at, key }),
    }
    let mine = words(&both.client.memory);
    let failure = next_completion(&mut both.client.queue).failure;
    let failure = failure.unwrap_or_else(|| panic!("{why}: let through"));
    assert!(failure.is_remote_access(), "{why}: {failure}");
    assert!(both.client.queue.is_over(), "{why}");
    assert_eq!(words(&both.server.memory), before, "{why}: bytes changed");
    assert_eq!(words(&both.client.memory), mine, "{why}: bytes were read");

    let (server, client, key) = other;
    client.write(8, 8, Remote { at: AT + 8, key: *key }, Some(2));
    let what = What::Received { immediate: Some(2), bytes: 8 };
    assert_eq!(success(&mut server.queue).what, what, "{why}: the other client");
    success(&mut client.queue);
    server.queue.receive(1).unwrap();
}

/// A pair, and another one at the same listener with a window of its own.
fn with_other() -> (Pair, (Side, Side, u32)) {
    let address = address();
    let mut both = pair(address, DEPTHS, DEPTHS, WINDOWED);
    let (mut server, client) = join(&mut both.listener, DEPTHS, DEPTHS, WINDOWED);
    let mut window = server.queue.window().unwrap();
    let key = bind(&mut server, &mut window, AT, WRITE);
    (both, (server, client, key))
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_write_inside_a_window_lands_and_a_key_is_good_until_it_is_invalidated() {
    let (mut both, mut other) = with_other();
    let mut window = both.server.queue.window().unwrap();
    let key = bind(&mut both.server, &mut window, AT, WRITE);
    fill(&both.client.memory, 5);
    both.client.write(0, BYTES as u32, Remote { at: AT, key }, Some(1));
    success(&mut both.server.queue);
    success(&mut both.client.queue);
    assert_eq!(both.server.memory.load(AT), 5);
    assert_eq!(both.server.memory.load(AT + BYTES - 8), (BYTES - 8) ^ 5);
    assert!(both.server.queue.is_bound(&window));
    invalidate(&mut both.server.queue, &mut window);
    assert!(!both.server.queue.is_bound(&window));
    // A second time there is nothing to take back, and nothing is posted.
    both.server.queue.invalidate(&mut window, signalled()).unwrap();
    let attempt = Try::Write { at: AT, bytes: 8, key };
    refused("after invalidate", &mut both, &mut other, attempt);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn nothing_outside_of_a_window_is_reached() {
    for (at, bytes) in [(AT - 8, 16), (AT + BYTES - 8, 16), (0, 8), (AT + BYTES, 8)] {
        let (mut both, mut other) = with_other();
        let mut window = both.server.queue.window().unwrap();
        let key = bind(&mut both.server, &mut window, AT, WRITE);
        let why = format!("{bytes} bytes at {at}");
        refused(&why, &mut both, &mut other, Try::Write { at, bytes, key });
    }
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_window_is_good_for_the_client_of_its_queue_only() {
    let (mut both, mut other) = with_other();
    let key = other.2;
    refused("another's key", &mut both, &mut other, Try::Write { at: AT, bytes: 8, key });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn an_old_key_is_refused_when_the_window_is_bound_anew() {
    let (mut both, mut other) = with_other();
    let mut window = both.server.queue.window().unwrap();
    let old = bind(&mut both.server, &mut window, AT, WRITE);
    invalidate(&mut both.server.queue, &mut window);
    let new = bind(&mut both.server, &mut window, AT, WRITE);
    assert_ne!(old, new);
    both.client.write(0, 8, Remote { at: AT, key: new }, Some(1));
    success(&mut both.server.queue);
    success(&mut both.client.queue);
    refused("an old key", &mut both, &mut other, Try::Write { at: AT, bytes: 8, key: old });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_window_for_writing_is_not_read_and_one_for_reading_not_written() {
    let (mut both, mut other) = with_other();
    let mut window = both.server.queue.window().unwrap();
    let key = bind(&mut both.server, &mut window, AT, WRITE);
    refused("read", &mut both, &mut other, Try::Read { at: AT, bytes: 8, key });

    let (mut both, mut other) = with_other();
    let mut window = both.server.queue.window().unwrap();
    let key = bind(&mut both.server, &mut window, AT, Rights { read: true, write: false });
    both.client.read(0, 64, Remote { at: AT + 64, key });
    success(&mut both.client.queue);
    assert_eq!(both.client.memory.load(8), AT + 72);
    refused("write", &mut both, &mut other, Try::Write { at: AT, bytes: 8, key });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_region_without_rights_from_afar_is_reached_by_no_key_of_its_own() {
    let (mut both, mut other) = with_other();
    let key = both.server.region.remote_key();
    refused("the region's key", &mut both, &mut other, Try::Write { at: AT, bytes: 8, key });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_stopped_queue_takes_nothing() {
    let (mut both, mut other) = with_other();
    let mut window = both.server.queue.window().unwrap();
    let key = bind(&mut both.server, &mut window, AT, WRITE);
    let before = words(&both.server.memory);
    both.server.queue.stop();
    for _ in 0..DEPTHS.receive {
        let failure = next_completion(&mut both.server.queue).failure.expect("stopped");
        assert!(failure.is_flush(), "{failure}");
    }
    fill(&both.client.memory, 9);
    both.client.write(0, 8, Remote { at: AT, key }, Some(1));
    let failure = next_completion(&mut both.client.queue).failure.expect("taken after the stop");
    assert!(!failure.is_remote_access(), "{failure}");
    assert_eq!(words(&both.server.memory), before);
    let (server, client, key) = &mut other;
    client.write(0, 8, Remote { at: AT, key: *key }, None);
    success(&mut client.queue);
    assert!(!server.queue.is_over());
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn no_key_comes_back_in_three_hundred_binds() {
    let (mut both, mut other) = with_other();
    let mut window = both.server.queue.window().unwrap();
    let mut keys = Vec::new();
    for _ in 0..300 {
        let side = &mut both.server;
        let how = How::default();
        // One completion for both: what is not asked for is counted with what is.
        let key = loop {
            match side.queue.bind(&mut window, &side.region, AT, BYTES, WRITE, how) {
                Ok(key) => break key,
                Err(Full) => assert!(side.queue.take_trouble().is_none()),
            }
        };
        keys.push(key);
        invalidate(&mut side.queue, &mut window);
    }
    let last = bind(&mut both.server, &mut window, AT, WRITE);
    both.client.write(0, 8, Remote { at: AT, key: last }, Some(1));
    success(&mut both.server.queue);
    success(&mut both.client.queue);
    let first = keys[0];
    keys.push(last);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 301);
    refused("the first", &mut both, &mut other, Try::Write { at: AT, bytes: 8, key: first });
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn an_acceptance_carries_the_key_of_a_window_that_is_good_at_once() {
    let address = address();
    let mut listener = listener(address);
    let to = listener.local_addr();
    std::thread::scope(|scope| {
        let dial = scope.spawn(move || {
            let dialing = Dialing::resolve(to, deadline()).unwrap();
            let domain = dialing.domain().unwrap();
            let (memory, mtu) = (mapping(4096), |_: &[u8]| 4096);
            fill(&memory, 77);
            let region = Region::of_mapping(&domain, &memory, 0, 4096, LOCAL).unwrap();
            let (mut queue, answer) =
                dialing.connect(&domain, DEPTHS, &[], |_| Ok(()), mtu, deadline()).unwrap();
            let key = u32::from_le_bytes(*answer.first_chunk().unwrap());
            let piece = Local { region: &region, at: 0, bytes: 4096 };
            queue.write(&[piece], Remote { at: AT, key }, None, signalled()).unwrap();
            success(&mut queue);
        });
        let request = next_request(&mut listener);
        let domain = request.domain().unwrap();
        let memory = mapping(MEMORY_BYTES);
        let region = Region::of_mapping(&domain, &memory, 0, MEMORY_BYTES, WINDOWED).unwrap();
        let queue = request.accept_with(&domain, DEPTHS, 4096, |queue| {
            let mut window = queue.window()?;
            let key = queue.bind(&mut window, &region, AT, BYTES, WRITE, signalled());
            let key = key.expect("an empty queue has room");
            assert_eq!(success(queue).what, What::Bind);
            Ok(key.to_le_bytes().to_vec())
        });
        let queue = queue.unwrap();
        dial.join().unwrap();
        assert_eq!(memory.load(AT + 8), 8 ^ 77);
        drop(queue);
    });
}
