//! The header of a file whose own does not hold, from where the file lies and what is in it.

use std::path::Path;

use landfall_layout::limits::{LINE_BYTES, SEQUENCED_LOG, TOPIC_NAME_BYTES_MAX};
use landfall_layout::replica::{LOG_UNKNOWN, NO_FILE, Place, REPLICA_HEADER_BYTES, ReplicaHeader};

use crate::error::FileError;
use crate::names::named;
use crate::topic::TopicFile;
use crate::walk::Walk;

/// What the header said, as far as it can be known: with no file before this one, since only the
/// header said which. None where the file does not lie where such files do, or no record holds.
pub(crate) fn header(walk: &mut Walk) -> Result<Option<ReplicaHeader>, FileError> {
    let Some(said) = named(walk.path()) else { return Ok(None) };
    let Some(first) = first_record(walk, (said.created_ns, said.source.raw()))? else {
        return Ok(None);
    };
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    header.created_ns = said.created_ns;
    header.source = said.source.raw();
    // Before the first record that holds there may have been others: how many is not known, and so
    // nothing is claimed of them.
    header.first_index = match first.at {
        REPLICA_HEADER_BYTES => said.first_index,
        _ => first.index,
    };
    header.first_ordinal = first.ordinal;
    header.previous_index = NO_FILE;
    header.mark = first.mark.iter().rev().fold(0, |mark, byte| mark << 8 | u64::from(*byte));
    let name = said.name.as_bytes();
    let bytes = name.len().min(TOPIC_NAME_BYTES_MAX);
    header.name[..bytes].copy_from_slice(&name[..bytes]);
    header.name_bytes = bytes as u32;
    header.log = LOG_UNKNOWN;
    if let Some(topic) = walk.path().parent().and_then(Path::parent)
        && let Ok(file) = TopicFile::read(topic)
        && let Some(order) = file.order()
    {
        header.order = order.raw();
        header.log = match order.is_sequenced() {
            true => SEQUENCED_LOG as u8,
            false => said.source.raw(),
        };
    }
    Ok(Some(header.seal()))
}

/// The first record of the file that holds. Its mark is the file's: of a whole file the first
/// record stands behind the header, where no payload can be.
fn first_record(walk: &mut Walk, whose: (u64, u8)) -> Result<Option<Place>, FileError> {
    let mut at = REPLICA_HEADER_BYTES;
    while at < walk.bytes() {
        if let Some(place) = walk.claim(at, whose)? {
            return Ok(Some(place));
        }
        at += LINE_BYTES;
    }
    Ok(None)
}
