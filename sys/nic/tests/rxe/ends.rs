//! Ends: processes that die, and things that are dropped in any order.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use landfall_nic::{Depths, Dialing, Ending, Event, How, Listener, Remote, Rights};
use landfall_pool::Memory;

use super::support::{
    ALL, DEPTHS, PATIENCE, Pair, Side, WINDOWED, address, deadline, join, listener, mapping,
    next_completion, next_event, next_request, pair, success, wait,
};

/// Names the listener to the process that is to die.
const VICTIM: &str = "LANDFALL_NIC_VICTIM_DIALS";

/// Kills and reaps its process, however the test ends.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn victim(of: &Listener) -> Victim {
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args(["--ignored", "--exact", "rxe::ends::a_peer_that_dies_is_noticed"])
        .env(VICTIM, of.local_addr().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Victim(child)
}

/// What the process that is to die does: it connects, with a window in use, and waits.
fn die(to: &str) {
    let dialing = Dialing::resolve(to.parse().unwrap(), deadline()).unwrap();
    let domain = dialing.domain().unwrap();
    let memory = mapping(8192);
    let region = landfall_nic::Region::of_mapping(&domain, &memory, 0, 8192, WINDOWED).unwrap();
    let (mut queue, _) =
        dialing.connect(&domain, DEPTHS, &[], |_| Ok(()), |_| 4096, deadline()).unwrap();
    let mut window = queue.window().unwrap();
    let rights = Rights { read: true, write: true };
    let how = How { signalled: true, ..How::default() };
    let key = queue.bind(&mut window, &region, 0, 8192, rights, how).unwrap();
    success(&mut queue);
    memory.store(0, u64::from(key));
    thread::sleep(PATIENCE);
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_peer_that_dies_is_noticed() {
    if let Ok(to) = std::env::var(VICTIM) {
        return die(&to);
    }
    let address = address();
    let mut listener = listener(address);
    let mut victim = victim(&listener);
    let request = next_request(&mut listener);
    let domain = request.domain().unwrap();
    let mut queue = request.accept(&domain, DEPTHS, 4096, &[], |_| Ok(())).unwrap();
    assert!(matches!(next_event(&mut listener), Event::Established(_)));
    victim.0.kill().unwrap();
    victim.0.wait().unwrap();
    match next_event(&mut listener) {
        Event::Ended(id, how) => assert_eq!((id, how), (queue.id(), Ending::Disconnected)),
        _ => panic!("something else than the end"),
    }
    // The queue pair notices by itself as well, once it has something to say.
    let how = How { signalled: true, ..How::default() };
    queue.write(&[], Remote { at: 0, key: 0 }, Some(1), how).unwrap();
    let failure = next_completion(&mut queue).failure.expect("a write to the dead");
    assert!(!failure.is_flush(), "{failure}");
    assert!(queue.is_over());
}

/// Runs something that must come to an end.
fn ends(what: &str, run: impl FnOnce() + Send) {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            run();
            drop(done);
        });
        // A hung thread cannot be joined: the process has to end for the failure to be told.
        if is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{what}: hangs");
            std::process::exit(101);
        }
    });
}

/// A pair whose server has bound windows, with work under way in both directions.
fn busy() -> Pair {
    let mut both = pair(address(), DEPTHS, DEPTHS, ALL);
    let rights = Rights { read: true, write: true };
    for _ in 0..2 {
        let Side { queue, region, .. } = &mut both.server;
        let mut window = queue.window().unwrap();
        let how = How { signalled: true, ..How::default() };
        queue.bind(&mut window, region, 0, 4096, rights, how).unwrap();
    }
    let key = both.server.region.remote_key();
    for n in 0..4 {
        both.client.write(0, 4096, Remote { at: 0, key }, Some(n));
        both.server.queue.arm().unwrap();
    }
    both
}

/// A way to end, and its name.
type Order = (&'static str, fn(Pair));

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn whatever_is_dropped_first_nothing_hangs() {
    let orders: [Order; 7] = [
        ("client, server, listener", |both| {
            let Pair { server, client, listener } = both;
            drop(client);
            drop(server);
            drop(listener);
        }),
        ("listener, server, client", |both| {
            let Pair { server, client, listener } = both;
            drop(listener);
            drop(server);
            drop(client);
        }),
        ("region and memory before the queue", |both| {
            let Side { queue, memory, region, domain } = both.server;
            drop(domain);
            drop(region);
            drop(memory);
            drop(queue);
        }),
        ("queue last of all", |both| {
            let Pair { server, client, listener } = both;
            let Side { queue, memory, region, domain } = client;
            drop((listener, server, memory, region, domain));
            drop(queue);
        }),
        ("both at once in two threads", |both| {
            let Pair { server, client, listener } = both;
            thread::scope(|scope| {
                scope.spawn(move || drop(server));
                scope.spawn(move || drop(client));
            });
            drop(listener);
        }),
        ("a queue while its listener is read", |both| {
            let Pair { server, client, mut listener } = both;
            let id = server.queue.id();
            thread::scope(|scope| {
                scope.spawn(move || drop(server));
                drop(client);
                for _ in 0..100 {
                    if let Ok(Some(Event::Ended(ended, _))) = listener.next() {
                        assert_eq!(ended, id);
                    }
                    thread::yield_now();
                }
            });
        }),
        ("stopped before", |mut both| {
            both.client.queue.stop();
            both.server.queue.stop();
        }),
    ];
    for (what, order) in orders {
        let both = busy();
        ends(what, move || order(both));
    }
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_listener_outlives_many_connections() {
    let address = address();
    let mut listener = listener(address);
    for n in 0..8 {
        let (mut server, mut client) = join(&mut listener, DEPTHS, DEPTHS, ALL);
        let key = server.region.remote_key();
        client.write(0, 8, Remote { at: 0, key }, Some(n));
        success(&mut server.queue);
        let id = server.queue.id();
        drop(client);
        let ended = wait("its end", || match listener.next().unwrap() {
            Some(Event::Ended(ended, _)) => Some(ended),
            _ => None,
        });
        assert_eq!(ended, id);
    }
}

#[test]
#[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
fn a_device_that_grants_less_inline_room_says_how_much() {
    let address = address();
    let depths = Depths { inline: 1 << 20, ..DEPTHS };
    let both = pair(address, DEPTHS, depths, ALL);
    let granted = both.client.queue.inline_bytes();
    assert!(granted < 1 << 20, "{granted}");
}
