//! A publisher of the demo: takes files and publishes them in chunks.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::Ordering;

use landfall::{Lane, Outgoing, Publisher, Transport};
use landfall_layout::batch::message_stride;
use landfall_pool::clock::wall_ns;
use sha2::{Digest, Sha256};

use super::Shared;
use crate::error::{Outcome, Tried};
use crate::out::note;

/// A file's hash and size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Print {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Bytes.
    pub bytes: u64,
}

/// What a publisher sent.
pub struct Sent {
    /// Transport in use.
    pub transport: Transport,
    /// Files by number, with what was read from the disk.
    pub files: Vec<(usize, Print)>,
    /// Files that could not be read.
    pub skipped: usize,
    /// Messages.
    pub messages: u64,
    /// Messages that reached their level.
    pub acked: u64,
    /// Batches sent again.
    pub resubmitted: u64,
}

/// A message's key: which file, which chunk of it, and whether it is the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Number of the file.
    pub file: usize,
    /// Number of the chunk, from 0.
    pub chunk: u64,
    /// What follows it.
    pub then: Then,
}

/// What follows a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Another chunk.
    More,
    /// Nothing: the file is whole.
    End,
    /// Nothing: the file could not be read to its end, and does not count.
    Abandoned,
}

impl Key {
    /// As it travels: `17:3` and another chunk follows, `17:4$` is the last, `17:4!` gives up.
    pub fn text(self) -> String {
        let mark = match self.then {
            Then::More => "",
            Then::End => "$",
            Then::Abandoned => "!",
        };
        format!("{}:{}{mark}", self.file, self.chunk)
    }

    /// The key that the bytes say.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (file, rest) = text.split_once(':')?;
        let (chunk, then) = match (rest.strip_suffix('$'), rest.strip_suffix('!')) {
            (Some(chunk), _) => (chunk, Then::End),
            (_, Some(chunk)) => (chunk, Then::Abandoned),
            _ => (rest, Then::More),
        };
        Some(Self { file: file.parse().ok()?, chunk: chunk.parse().ok()?, then })
    }
}

/// Publishes files until there is none left that nobody has taken.
pub fn all(mut publisher: Publisher, shared: &Shared<'_>) -> Outcome<Sent> {
    let cannot = || "cannot publish".to_owned();
    let mut sent = Sent {
        transport: publisher.transport(),
        files: Vec::new(),
        skipped: 0,
        messages: 0,
        acked: 0,
        resubmitted: 0,
    };
    let mut buffer = vec![0; shared.chunk_bytes];
    while !shared.is_over() {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(path) = shared.files.list.get(number) else { break };
        match one(&mut publisher, number, path, &mut buffer, shared, &mut sent.messages)? {
            Some(print) => sent.files.push((number, print)),
            None => sent.skipped += 1,
        }
    }
    publisher.flush().tried(cannot)?;
    sent.acked = publisher.acked().messages;
    sent.resubmitted = publisher.stats().resubmitted;
    publisher.close().tried(cannot)?;
    Ok(sent)
}

/// Publishes a file. `None`: it could not be read, which is noted, or the demo is over.
fn one(
    publisher: &mut Publisher,
    number: usize,
    path: &Path,
    buffer: &mut [u8],
    shared: &Shared<'_>,
    messages: &mut u64,
) -> Outcome<Option<Print>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            note(format_args!("skipped {}: {error}", path.display()));
            return Ok(None);
        }
    };
    let mut hash = Sha256::new();
    let mut bytes = 0;
    for chunk in 0.. {
        let (got, then) = match fill(&mut file, buffer) {
            Ok(got) if got < buffer.len() => (got, Then::End),
            Ok(got) => (got, Then::More),
            Err(error) => {
                note(format_args!("skipped {} after {bytes} bytes: {error}", path.display()));
                (0, Then::Abandoned)
            }
        };
        let key = Key { file: number, chunk, then }.text();
        let payload = &buffer[..got];
        hash.update(payload);
        bytes += got as u64;
        let message = Outgoing {
            key: Some(key.as_bytes()),
            payload,
            timestamp_ns: Some(wall_ns()),
            lane: Lane::Normal,
        };
        publisher
            .publish_message(message)
            .tried(|| format!("cannot publish {}", path.display()))?;
        *messages += 1;
        shared.window.published(message_stride(key.len(), got).unwrap_or(0) as u64);
        while shared.window.is_full() && !shared.is_over() {
            publisher.poll().tried(|| "cannot publish".into())?;
            std::thread::yield_now();
        }
        match then {
            Then::More if !shared.is_over() => {}
            Then::End => return Ok(Some(Print { sha256: hash.finalize().into(), bytes })),
            Then::More | Then::Abandoned => return Ok(None),
        }
    }
    Ok(None)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_the_same() {
        for then in [Then::More, Then::End, Then::Abandoned] {
            let key = Key { file: 17, chunk: 3, then };
            assert_eq!(Key::parse(key.text().as_bytes()), Some(key));
        }
        for bytes in [&b""[..], b"17", b"17:", b":3", b"a:b", b"1:2$!", b"\xff:1", b"-1:2"] {
            assert_eq!(Key::parse(bytes), None, "{bytes:?}");
        }
    }
}
