//! What this machine can do with the same blocks and nothing of ours in between.
//!
//! Memory: one source block is copied over and over into a faulted mapping as large as the pool,
//! with ordinary and with non-temporal stores; the better counts. Tcp: a bare socket pair on
//! 127.0.0.1, one thread writing and one receiving into such a mapping, the kind of place a broker
//! lands in.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use landfall_pool::map::{Backing, Mapping, memfd};
use landfall_pool::room;
use landfall_pool::stream::stream_fence;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Failure, Outcome};

/// A limit that was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Limit {
    /// What was done.
    pub name: String,
    /// How fast.
    pub bytes_per_second: f64,
}

/// Measures limits into one mapping, so that its pages are faulted only once.
pub struct Prober {
    mapping: Mapping,
    block: Vec<u8>,
}

impl Prober {
    /// A prober that moves blocks of `block_bytes` into `mapping_bytes`.
    pub fn new(block_bytes: u64, mapping_bytes: u64) -> Outcome<Self> {
        let failed = |why: String| Failure::failed("cannot measure the limit", why);
        let bytes = mapping_bytes.next_multiple_of(4096).max(block_bytes.next_multiple_of(4096));
        // The pool takes as much once more.
        let (wanted, available) = (bytes.saturating_mul(2), room::available());
        if let Some(available) = available.filter(|available| *available < wanted) {
            return Err(failed(format!(
                "it takes {wanted} bytes of memory with the pool, and {available} are available; \
                 say a smaller --pool-bytes"
            )));
        }
        let fd = memfd("landfall-limit", bytes).map_err(|error| failed(error.to_string()))?;
        let mapping = Mapping::new(&fd, bytes, Backing::Shmem, true)
            .map_err(|error| failed(error.to_string()))?;
        mapping.prefault().map_err(|error| failed(format!("fault in {bytes} bytes: {error}")))?;
        // Any bytes but zeros, in case something treats those specially.
        let block = (0..block_bytes).map(|i| (i % 251) as u8).collect();
        Ok(Self { mapping, block })
    }

    /// The better of ordinary and non-temporal copies.
    pub fn memory(&self, time: Duration) -> Outcome<Limit> {
        let plain = self.copies(time / 2, |at, block| self.mapping.write(at, block))?;
        let streamed = self.copies(time / 2, |at, block| {
            self.mapping.stream(at, block)?;
            stream_fence();
            Ok(())
        })?;
        Ok(if streamed > plain {
            Limit { name: "non-temporal copy".into(), bytes_per_second: streamed }
        } else {
            Limit { name: "memcpy".into(), bytes_per_second: plain }
        })
    }

    /// A bare socket pair.
    pub fn tcp(&self, time: Duration) -> Outcome<Limit> {
        let failed = |error: io::Error| Failure::failed("cannot measure the tcp limit", error);
        let (sender, receiver) = pair().map_err(failed)?;
        let stop = AtomicBool::new(false);
        let received = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_until(sender, &self.block, &stop));
            let received = self.receive(&receiver, time);
            // Relaxed: nothing is published with the word.
            stop.store(true, Ordering::Relaxed);
            // A writer that waits for room is woken by the end of the connection.
            drop(receiver);
            let wrote = writer.join().unwrap_or_else(|_| Err(io::Error::other("writer panicked")));
            received.and_then(|rate| wrote.map(|()| rate))
        });
        let bytes_per_second = received.map_err(failed)?;
        Ok(Limit { name: "bare socket pair".into(), bytes_per_second })
    }

    /// Copies blocks for a while and returns bytes a second.
    fn copies(&self, time: Duration, copy: impl Fn(u64, &[u8]) -> io::Result<()>) -> Outcome<f64> {
        let step = (self.block.len() as u64).next_multiple_of(64);
        let started = Instant::now();
        let (mut at, mut bytes) = (0, 0_u64);
        // Something has to move, however late this thread, or the other, is let run.
        while bytes == 0 || started.elapsed() < time {
            if at + step > self.mapping.bytes() {
                at = 0;
            }
            copy(at, &self.block)
                .map_err(|error| Failure::failed("cannot measure the memory limit", error))?;
            at += step;
            bytes += self.block.len() as u64;
        }
        Ok(bytes as f64 / started.elapsed().as_secs_f64())
    }

    fn receive(&self, socket: &TcpStream, time: Duration) -> io::Result<f64> {
        let step = (self.block.len() as u64).next_multiple_of(64);
        let (mut at, mut left, mut bytes) = (0, self.block.len(), 0_u64);
        let started = Instant::now();
        // Something has to move, however late this thread, or the other, is let run.
        while bytes == 0 || started.elapsed() < time {
            match self.mapping.recv(socket, at + (self.block.len() - left) as u64, left) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    bytes += got as u64;
                    left -= got;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                    poll(&mut ready, PollTimeout::from(100_u8))?;
                }
                Err(error) => return Err(error),
            }
            if left == 0 {
                left = self.block.len();
                at = if at + 2 * step > self.mapping.bytes() { 0 } else { at + step };
            }
        }
        Ok(bytes as f64 / started.elapsed().as_secs_f64())
    }
}

/// Two ends of a TCP connection on this host.
pub fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}

fn write_until(mut socket: TcpStream, block: &[u8], stop: &AtomicBool) -> io::Result<()> {
    // Relaxed: as where it is set.
    while !stop.load(Ordering::Relaxed) {
        match socket.write_all(block) {
            // The receiver has gone, which is how it ends.
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The better of two measurements of the same limit.
pub fn better(a: Limit, b: Limit) -> Limit {
    if b.bytes_per_second > a.bytes_per_second { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_move_bytes() {
        let prober = Prober::new(1 << 16, 1 << 20).unwrap();
        let memory = prober.memory(Duration::from_millis(20)).unwrap();
        assert!(memory.bytes_per_second > 0.0, "{memory:?}");
        let tcp = prober.tcp(Duration::from_millis(20)).unwrap();
        assert!(tcp.bytes_per_second > 0.0 && tcp.name.contains("socket"), "{tcp:?}");
        assert_eq!(better(memory.clone(), tcp.clone()), better(tcp, memory));
    }

    #[test]
    fn a_block_larger_than_the_mapping_makes_the_mapping_larger() {
        let prober = Prober::new(3 << 20, 4096).unwrap();
        assert!(prober.memory(Duration::from_millis(2)).unwrap().bytes_per_second > 0.0);
    }
}
