//! Two publishers of one client id: the older one is cut off while the other takes over.

use std::collections::HashMap;
use std::io::Read;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use landfall::{Error, Order, Publisher, Transport};
use landfall_layout::frame::{FRAME_BYTES, Frame};

use crate::flow::{Promise, Until, audit, check_sent, message, publish, read};
use crate::{Failure, Rig, Site};

const ORDERS: [Order; 4] = [Order::Strong, Order::Stream, Order::Total, Order::Broker];
/// Whose messages are the older publisher's, and whose the newer one's.
const OLDER: u64 = 1;
const NEWER: u64 = 2;
/// Bytes of a message.
const BYTES: usize = 100;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(address: &str) -> Result<Self, Failure> {
        Ok(if let Some(name) = address.strip_prefix('@') {
            let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            listener.set_nonblocking(true)?;
            Self::Unix(listener)
        } else if address.starts_with('/') {
            // A broker that was killed leaves its socket, or the directory went with it.
            let _ = std::fs::remove_file(address);
            std::fs::create_dir_all(Path::new(address).parent().unwrap_or(Path::new("/")))?;
            let listener = UnixListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Self::Unix(listener)
        } else {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Self::Tcp(listener)
        })
    }

    /// The next connection, if there is one.
    fn accept(&self) -> std::io::Result<Box<dyn Read>> {
        let longest = Some(Duration::from_secs(1));
        Ok(match self {
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nonblocking(false).and(stream.set_read_timeout(longest))?;
                Box::new(stream)
            }
            Self::Unix(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nonblocking(false).and(stream.set_read_timeout(longest))?;
                Box::new(stream)
            }
        })
    }
}

/// Somebody at a broker's address who takes each hello and closes, as a balancer whose broker is
/// gone does: who said it cannot know that nobody heard it.
struct Deaf {
    /// Hellos of each client.
    said: Arc<Mutex<HashMap<u64, u32>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Deaf {
    fn at(address: &str) -> Result<Self, Failure> {
        let listener = Listener::bind(address)?;
        let said = Arc::new(Mutex::new(HashMap::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (counts, over) = (Arc::clone(&said), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let mut bytes = [0; FRAME_BYTES];
                if stream.read_exact(&mut bytes).is_ok()
                    && let Ok((Frame::Hello(hello), _)) = Frame::decode(bytes)
                {
                    let mut counts = counts.lock().expect("nobody panics with it");
                    *counts.entry(hello.client).or_default() += 1;
                }
            }
        });
        Ok(Self { said, is_over, thread: Some(thread) })
    }

    fn said_by(&self, client: u64) -> u32 {
        let said = self.said.lock().expect("nobody panics with it");
        said.get(&client).copied().unwrap_or(0)
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It may have panicked: then it has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the older publisher sends before its hellos are lost, and each of them once more.
fn cut_off(site: &mut Site, address: &str, older: &mut [Publisher]) -> Result<(), Failure> {
    // Control says of a broker that is gone that it is: without control, it is still tried.
    site.system.kill_control();
    site.system.kill_broker(0);
    let deaf = Deaf::at(address)?;
    for publisher in &mut *older {
        for n in 1..3 {
            publisher.publish(&message(OLDER, n, BYTES))?;
            publisher.seal()?;
        }
    }
    site.wait_until("that each says hello three times", |_| {
        for publisher in &mut *older {
            publisher.poll()?;
        }
        Ok(older.iter().all(|publisher| deaf.said_by(publisher.client_id()) >= 3))
    })?;
    drop(deaf);
    site.system.start_control()?;
    Ok(site.system.start_broker(0)?)
}

/// A publisher is cut off with batches that were never heard, and so are its hellos; another one of
/// its client id takes over. The older one is told so, calls nothing of the other's its own, and
/// leaves it alone.
pub fn a_publisher_that_was_taken_over_from_finds_out(rig: &Rig) -> Result<(), Failure> {
    if rig.transport == Transport::Verbs {
        // A knock that nobody hears is known to be none.
        return Ok(());
    }
    let mut site = rig.start()?;
    let address = site.address(0)?;
    let topics =
        ORDERS.into_iter().map(|order| site.topic(order)).collect::<Result<Vec<_>, Failure>>()?;
    let mut older = Vec::new();
    for (client, topic) in (11..).zip(&topics) {
        let mut publisher = site.publisher(topic).client_id(client).broker(0).build()?;
        publish(&mut publisher, OLDER, 0..1, BYTES)?;
        publisher.flush()?;
        older.push(publisher);
    }
    cut_off(&mut site, &address, &mut older)?;
    for ((order, topic), mut older) in ORDERS.into_iter().zip(&topics).zip(older) {
        let client = older.client_id();
        let mut newer = site.publisher(topic).client_id(client).build()?;
        publish(&mut newer, NEWER, 0..5, BYTES)?;
        newer.flush()?;
        match older.flush() {
            Err(Error::Superseded { client: of, .. }) if of == client => {}
            other => return Err(Failure::new(format!("in order {order} it was told {other:?}"))),
        }
        let acked = older.acked().messages;
        ensure!(acked == 1, "in order {order} {acked} messages have their receipts, 1 was heard");
        publish(&mut newer, NEWER, 5..10, BYTES)?;
        newer.flush()?;
        let reconnects = newer.stats().reconnects;
        ensure!(
            reconnects == 0,
            "in order {order} the newer one had to come back {reconnects} times"
        );
        newer.close()?;
        let reading = read(site.subscriber(topic).build()?, Until::CaughtUp)?;
        check_sent(&reading, &[(OLDER, 1), (NEWER, 10)], Promise::InOrderOnce)?;
        audit(order, &[&reading])?;
    }
    site.close()
}
