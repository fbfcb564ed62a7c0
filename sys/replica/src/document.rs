//! A small document that lies in two files beside each other, written one after the other, so that
//! one of them holds at any moment.
//!
//! Each ends with a generation and a checksum over everything before that. It is written over in
//! place, which needs no room on a full disk: so it has some to spare, as empty lines at its end.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use landfall_layout::batch::crc32c;

use crate::error::FileError;
use crate::names::TOPIC_FILE;

/// What file systems give room by.
const BLOCK: usize = 4096;
/// Bytes to spare in a file that had to grow.
const SPARE: usize = BLOCK / 2;

/// The last members of the document.
const GENERATION: &[u8] = b",\n  \"generation\": ";
const SUM: &[u8] = b",\n  \"checksum\": ";
const END: &[u8] = b"\n}";

/// A document without its last members.
pub(crate) struct Document {
    pub body: Vec<u8>,
    /// The higher one of two counts. 0: an earlier program wrote it.
    pub generation: u64,
    /// It has a checksum, and that is of what was written.
    pub is_summed: bool,
}

/// Reads a document, with or without a checksum. One that is not of what was written is an error.
pub(crate) fn parse(text: &[u8]) -> Result<Document, String> {
    let last = |of: &[u8], member: &[u8]| of.windows(member.len()).rposition(|at| at == member);
    let Some(at) = last(text, SUM) else {
        return Ok(Document { body: text.to_vec(), generation: 0, is_summed: false });
    };
    let (summed, claimed) = (&text[..at], &text[at + SUM.len()..]);
    let computed = crc32c(summed);
    let behind = claimed.strip_prefix(computed.to_string().as_bytes());
    let lines = behind.and_then(|behind| behind.strip_prefix(END));
    if !lines.is_some_and(|lines| !lines.is_empty() && lines.iter().all(|byte| *byte == b'\n')) {
        return Err(format!("it does not hold: its bytes give checksum {computed}"));
    }
    let Some(at) = last(summed, GENERATION) else {
        return Ok(Document { body: [summed, END].concat(), generation: 0, is_summed: true });
    };
    let number = std::str::from_utf8(&summed[at + GENERATION.len()..]).ok();
    let generation = number.and_then(|number| number.parse().ok());
    let generation = generation.ok_or("its generation is no number")?;
    Ok(Document { body: [&summed[..at], END].concat(), generation, is_summed: true })
}

/// The bytes of a document whose files have `have` bytes now: as many, if that is enough.
pub(crate) fn text(mut body: Vec<u8>, generation: u64, have: usize) -> Vec<u8> {
    body.truncate(body.len().saturating_sub(END.len()));
    body.extend([GENERATION, generation.to_string().as_bytes()].concat());
    let sum = crc32c(&body).to_string();
    let mut text = [&body, SUM, sum.as_bytes(), END, b"\n"].concat();
    let fits = text.len() <= have && have.is_multiple_of(BLOCK);
    let bytes = if fits { have } else { (text.len() + SPARE).next_multiple_of(BLOCK) };
    text.resize(bytes, b'\n');
    text
}

/// Writes one of the two files, and makes its bytes stay: in place if it is there. Who dies
/// meanwhile leaves one that does not hold, and the other one.
pub(crate) fn write(path: &Path, text: &[u8]) -> Result<(), FileError> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return create(path, text),
        Err(error) => return Err(FileError::io("open", path)(error)),
    };
    let have = file.metadata().map_err(FileError::io("look at", path))?.len();
    let more = text.len().saturating_sub(have as usize);
    // First the room: with more lines at its end it says what it said.
    if let Err(error) = file.write_all_at(&vec![b'\n'; more], have) {
        let _ = file.set_len(have);
        return Err(FileError::io("write", path)(error));
    }
    file.write_all_at(text, 0).map_err(FileError::io("write", path))?;
    if have > text.len() as u64 {
        file.set_len(text.len() as u64).map_err(FileError::io("cut", path))?;
    }
    file.sync_all().map_err(FileError::io("sync", path))
}

fn create(path: &Path, text: &[u8]) -> Result<(), FileError> {
    let fresh = path.with_file_name(format!("{TOPIC_FILE}.new"));
    let mut file = File::create(&fresh).map_err(FileError::io("create", &fresh))?;
    file.write_all(text).map_err(FileError::io("write", &fresh))?;
    file.sync_all().map_err(FileError::io("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(FileError::io("rename", &fresh))
}
