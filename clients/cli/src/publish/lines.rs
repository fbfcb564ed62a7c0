//! Lines from stdin or a file, read by a thread of their own: the publisher must be polled although
//! nothing more comes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use landfall_layout::limits::MESSAGE_BYTES_MAX;
use landfall_pool::stdio::stdin_was_closed;

use crate::error::{Failure, Outcome};

/// Bytes asked for at once. A terminal or a pipe gives what it has.
const READ_BYTES: usize = 256 << 10;
/// Chunks that may wait for the publisher: 4 MiB of read-ahead, and then reading stops.
const CHUNKS: usize = 16;

/// Something the reader found.
pub(super) enum Chunk {
    /// Whole lines, each with its newline; only the very last may lack it.
    Lines(Vec<u8>),
    /// The line that comes next is longer than any message. It is the last chunk.
    TooLong,
    /// Reading failed.
    Failed(Failure),
}

/// The source of lines.
pub(super) struct Reader {
    pub(super) name: String,
    source: Box<dyn Read + Send>,
}

impl Reader {
    /// Opens a file; nothing or `-` is stdin.
    pub(super) fn open(file: Option<&Path>) -> Outcome<Self> {
        let path = match file {
            None => return Self::stdin(),
            Some(path) if path == Path::new("-") => return Self::stdin(),
            Some(path) => path,
        };
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::usage(format!("cannot read {name}"), error);
        let source = File::open(path).map_err(failed)?;
        if source.metadata().map_err(failed)?.is_dir() {
            return Err(Failure::usage(format!("cannot read {name}"), "it is a directory"));
        }
        Ok(Self { name, source: Box::new(source) })
    }

    fn stdin() -> Outcome<Self> {
        if stdin_was_closed() {
            let next = "say --file, or </dev/null for no message";
            return Err(Failure::usage("there is nothing to read: stdin is closed", next));
        }
        Ok(Self { name: "stdin".into(), source: Box::new(io::stdin()) })
    }

    /// Starts reading. The thread ends with the source, or when nobody takes chunks any more.
    pub(super) fn start(self) -> Outcome<Receiver<Chunk>> {
        let (sender, chunks) = sync_channel(CHUNKS);
        std::thread::Builder::new()
            .name("landfall-lines".into())
            .spawn(move || read(self, &sender))
            .map_err(|error| Failure::failed("cannot start a thread that reads lines", error))?;
        Ok(chunks)
    }
}

fn read(mut reader: Reader, sender: &SyncSender<Chunk>) {
    let most = MESSAGE_BYTES_MAX as usize;
    let mut buffer = vec![0; READ_BYTES];
    let mut kept = Vec::new();
    loop {
        let got = match reader.source.read(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let failure = Failure::here(format!("cannot read {}", reader.name), error);
                // Nobody listening is an end like any other.
                let _ = sender.send(Chunk::Failed(failure));
                return;
            }
        };
        let read = &buffer[..got];
        let lines = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                let mut lines = std::mem::take(&mut kept);
                lines.extend_from_slice(&read[..=end]);
                kept.extend_from_slice(&read[end + 1..]);
                lines
            }
            None if got == 0 => std::mem::take(&mut kept),
            None => {
                kept.extend_from_slice(read);
                Vec::new()
            }
        };
        if kept.len() > most {
            let _ = sender.send(Chunk::Lines(lines));
            let _ = sender.send(Chunk::TooLong);
            return;
        }
        if !lines.is_empty() && sender.send(Chunk::Lines(lines)).is_err() {
            return;
        }
        if got == 0 {
            return;
        }
    }
}

/// The lines of a chunk without their newlines.
pub(super) fn split(chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    chunk
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives one piece a read.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let pieces = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        let reader = Reader { name: "test".into(), source: Box::new(pieces) };
        let mut lines = Vec::new();
        for chunk in reader.start().unwrap() {
            match chunk {
                Chunk::Lines(bytes) => lines.extend(split(&bytes).map(<[u8]>::to_vec)),
                Chunk::TooLong => lines.push(b"! too long".to_vec()),
                Chunk::Failed(failure) => lines.push(format!("! {failure}").into_bytes()),
            }
        }
        lines
    }

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        let whole: &[&[u8]] = &[b"one\ntwo\n", b"th", b"r", b"ee\n\nfi", b"ve"];
        let expected: Vec<Vec<u8>> =
            [&b"one"[..], b"two", b"three", b"", b"five"].iter().map(|l| l.to_vec()).collect();
        assert_eq!(lines(whole), expected);
        assert_eq!(lines(&[]), Vec::<Vec<u8>>::new(), "nothing is no message");
        assert_eq!(lines(&[b"\n"]), [b"".to_vec()], "an empty line is an empty message");
        assert_eq!(lines(&[b"a\r\n"]), [b"a\r".to_vec()], "bytes are not touched");
    }

    #[test]
    fn a_line_past_the_bound_is_an_error_and_what_came_before_it_counts() {
        let block = vec![b'x'; READ_BYTES];
        let mut pieces: Vec<&[u8]> = vec![b"first\n"];
        pieces.extend(std::iter::repeat_n(&block[..], 20));
        let lines = lines(&pieces);
        assert_eq!(lines, [&b"first"[..], b"! too long"]);
    }
}
