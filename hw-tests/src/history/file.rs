//! Histories in files: a JSON object a line, written as it happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use super::{Event, Name};

/// Writes a client's events to its file, each with one call of the system: what was noted is in
/// the file even when the process is killed right after.
#[derive(Debug)]
pub struct Recorder {
    file: File,
}

impl Recorder {
    /// Goes on with the file at `path`, or begins it.
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !ends_whole(path)? {
            // The process before this one was killed in the middle of a line.
            file.write_all(b"\n")?;
        }
        Ok(Self { file })
    }

    /// Notes an event.
    pub fn note(&mut self, event: &Event) -> io::Result<()> {
        self.note_all(std::slice::from_ref(event))
    }

    /// Notes events that happened together.
    pub fn note_all(&mut self, events: &[Event]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(events.len() * 64);
        for event in events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines)
    }
}

fn ends_whole(path: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes.last().is_none_or(|last| *last == b'\n'))
}

/// The events in a file, in order. A line that was cut off by the death of its writer is passed
/// over where it is the last of that writer's life; any other that cannot be read is an error.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(event) => events.push(event),
            Err(error) if error.is_eof() => {}
            Err(error) => {
                let what = format!("{} line {}: {error}", path.display(), number + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }
    Ok(events)
}

/// The highest number a client's file says was sent, and the highest with a receipt.
pub fn reached(events: &[Event], client: u64) -> (Option<u64>, Option<u64>) {
    let (mut sent, mut acked) = (None, None);
    for event in events {
        match event {
            Event::Sent { name: Name { client: who, n } } if *who == client => {
                sent = sent.max(Some(*n));
            }
            Event::Acked { name: Name { client: who, n }, .. } if *who == client => {
                acked = acked.max(Some(*n));
            }
            _ => {}
        }
    }
    (sent, acked)
}
