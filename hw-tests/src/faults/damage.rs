//! Bytes that change where nobody wrote: in replica files, and in the pool.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::TopicId;
use landfall_layout::limits::{BROKERS_MAX, PAGE_BYTES, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{
    RECORD_FRONTIER, RECORD_HEAD_BYTES, RECORD_MAGIC, REPLICA_HEADER_BYTES, RecordHeader,
    ReplicaHeader,
};
use landfall_layout::topic::TopicState;
use landfall_pool::log::{Found, LogReader};
use landfall_pool::{Memory, Pool};
use landfall_replica::names::{SUFFIX, TOPIC_FILE};

use super::fault::Spot;
use crate::Failure;
use crate::flow::Random;

/// Changes something in the replica files under `data`; says what.
pub(crate) fn files(data: &Path, spot: Spot, seed: u64) -> Result<String, Failure> {
    let mut random = Random::new(seed);
    let wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if spot == Spot::Settings { name == TOPIC_FILE } else { name.ends_with(SUFFIX) }
    };
    let mut found: Vec<PathBuf> = under(data)?.into_iter().filter(wanted).collect();
    found.sort();
    if found.is_empty() {
        return Ok(format!("there is no {spot} to damage yet"));
    }
    let path = &found[random.below(found.len() as u64) as usize];
    let file = File::options().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let records = records(&file, bytes)?;
    let shown = path.strip_prefix(data).unwrap_or(path).display().to_string();
    let of_kind = |frontier: bool| {
        let fits = |record: &&(u64, RecordHeader)| (record.1.kind == RECORD_FRONTIER) == frontier;
        records.iter().filter(fits).copied().collect::<Vec<_>>()
    };
    let mut pick = |from: &[(u64, RecordHeader)]| match from.len() as u64 {
        0 => None,
        count => Some(from[random.below(count) as usize]),
    };
    let at = match spot {
        Spot::Settings | Spot::End | Spot::Header => None,
        Spot::Record => pick(&of_kind(false)).map(|(at, _)| (at, 60)),
        Spot::Checksum => pick(&records).map(|(at, _)| (at + 60, 4)),
        Spot::Frontier => pick(&of_kind(true)).map(|(at, _)| (at, RECORD_HEAD_BYTES)),
        Spot::Payload => pick(&of_kind(false))
            .map(|(at, header)| (at + RECORD_HEAD_BYTES, u64::from(header.bytes).max(1))),
        Spot::Page => pick(&records).map(|(at, _)| (at / PAGE_BYTES * PAGE_BYTES, PAGE_BYTES)),
    };
    let at = match spot {
        Spot::Settings => Some((0, bytes)),
        Spot::Header => Some((0, ReplicaHeader::BYTES)),
        Spot::End => {
            let keep = bytes - random.below((bytes / 2).max(1));
            file.set_len(keep)?;
            return Ok(format!("{shown} ends at {keep} and not at {bytes}"));
        }
        _ => at,
    };
    let Some((from, count)) = at.filter(|(from, count)| from + count <= bytes && *count > 0) else {
        return Ok(format!("{shown} has no {spot} to damage yet"));
    };
    if spot == Spot::Page {
        // The header's page is another spot.
        let from = from.max(REPLICA_HEADER_BYTES);
        file.write_all_at(&vec![0; PAGE_BYTES.min(bytes - from) as usize], from)?;
        return Ok(format!("{shown}: the page at {from} is zeros"));
    }
    let at = from + random.below(count);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    let bit = 1 << random.below(8);
    file.write_all_at(&[byte[0] ^ bit], at)?;
    Ok(format!("{shown}: bit {bit:#x} of byte {at} ({spot}) changed"))
}

/// The replica files under `data`, in the order of their paths.
pub(crate) fn replicas(data: &Path) -> Result<Vec<PathBuf>, Failure> {
    let is_one = |path: &PathBuf| path.to_string_lossy().ends_with(SUFFIX);
    let mut found: Vec<PathBuf> = under(data)?.into_iter().filter(is_one).collect();
    found.sort();
    Ok(found)
}

fn under(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(under(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// The records of a file by what they say of themselves: an end or a tear hides none.
fn records(file: &File, bytes: u64) -> Result<Vec<(u64, RecordHeader)>, Failure> {
    let mut content = vec![0; bytes as usize];
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    let lines = content[..filled].chunks_exact(64).enumerate();
    let lines = lines.filter_map(|(line, bytes)| {
        let header = RecordHeader::from_bytes(*bytes.first_chunk::<64>()?);
        let at = line as u64 * 64;
        (header.magic == RECORD_MAGIC && header.at == at).then_some((at, header))
    });
    Ok(lines.collect())
}

/// Turns a bit of a batch that is ordered in the pool at `path`; says which.
pub(super) fn payload(path: &Path, seed: u64) -> Result<String, Failure> {
    let mut random = Random::new(seed);
    // A fault before this one may have taken its tables, or the pool is only being made.
    let Ok(pool) = Pool::attach(path) else { return Ok("there is no pool to damage".to_owned()) };
    let topics = (0..TOPICS_MAX).filter_map(|slot| pool.topic_in_slot(slot));
    let topics = topics.filter(|topic| topic.state() == TopicState::Live);
    let entries: Vec<OrderEntry> =
        topics.flat_map(|topic| entries(&pool, TopicId(topic.id))).collect();
    if entries.is_empty() {
        return Ok("no batch is in the pool yet".to_owned());
    }
    let entry = entries[random.below(entries.len() as u64) as usize];
    // All of it, the preamble too, eight bytes at a time.
    let offset = random.below(u64::from(entry.bytes / 8).max(1)) as u32 * 8;
    let Some(at) = pool.at(entry.segment, entry.offset + offset, 8) else {
        return Ok(format!("{entry:?} is not in the pool"));
    };
    let bit = random.below(64);
    pool.store(at, pool.load(at) ^ 1 << bit);
    pool.publish(at, 8);
    let (position, client) = (entry.first_position, entry.client);
    Ok(format!(
        "bit {bit} of the word {offset} bytes behind the start of the batch at position \
         {position}, of client {client}, changed"
    ))
}

/// Every entry of a topic's logs that a batch belongs to.
fn entries(pool: &Pool, topic: TopicId) -> Vec<OrderEntry> {
    let logs = (0..BROKERS_MAX).chain([SEQUENCED_LOG]);
    let of = |log| {
        let mut reader = LogReader::new(topic, log);
        let indexes = pool.oldest(topic, log)..pool.frontier(topic, log).entries;
        let found = indexes.filter_map(move |index| match reader.entry(pool, index) {
            Found::Entry(entry) => Some(entry),
            Found::Lapped { .. } | Found::Gone => None,
        });
        found.collect::<Vec<_>>()
    };
    logs.flat_map(of).filter(|entry| !entry.is_hole()).collect()
}

/// Makes a part of the pool's tables unreadable; says which.
pub(super) fn tables(path: &Path, seed: u64) -> Result<String, Failure> {
    let mut random = Random::new(seed);
    let Ok(pool) = Pool::attach(path) else { return Ok("there is no pool to cut".to_owned()) };
    let head = pool.geometry().head_bytes();
    let keep = (1 + random.below(head / PAGE_BYTES - 1)) * PAGE_BYTES;
    File::options().write(true).open(path)?.set_len(keep)?;
    Ok(format!("the pool cannot be read from byte {keep} on; its tables end at {head}"))
}
