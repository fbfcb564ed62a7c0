//! Pages that cannot be read: what goes on, and what ends with a sentence.
//!
//! A pool's file that is cut short behaves as one whose memory failed: whoever touches what is gone
//! gets SIGBUS. What ends a process is done in one of its own, this program once more.

mod common;

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::ids::{SegmentId, TopicId};
use landfall_layout::pool::Coherence;
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_pool::hold::Hold;
use landfall_pool::map::{Backing, is_poison, memfd};
use landfall_pool::poison::Part;
use landfall_pool::shared::send;
use landfall_pool::{Mapping, Memory, Pool};

use common::{memory, shape};

const PAGE: u64 = 4096;
/// The segment that is cut.
const CUT: SegmentId = SegmentId(3);

/// A pool, its file, and where segment [`CUT`] begins.
fn pool() -> (Pool, File, u64) {
    let (_fd, path) = memory();
    let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("a pool");
    let file = OpenOptions::new().write(true).open(&path).expect("the pool's file");
    let at = pool.geometry().segment(CUT).expect("a pool of many segments");
    (pool, file, at)
}

/// Says that segment [`CUT`] is for this.
fn give(pool: &Pool, kind: SegmentKind) {
    let what = What { kind, state: SegmentState::Open, owner: 0, log: 0, topic: TopicId(1) };
    pool.give_segment(CUT, &SegmentHeader { what: what.pack(), ..SegmentHeader::FREE });
}

#[test]
fn what_was_cut_off_reads_as_zeros_and_its_segment_is_lost() {
    let (pool, file, at) = pool();
    give(&pool, SegmentKind::Payload);
    for offset in [0, PAGE, 2 * PAGE] {
        pool.store(at + offset + 8, 77);
    }
    assert!(pool.is_whole(CUT));
    file.set_len(at + PAGE).expect("cut short");
    assert!(!pool.is_whole(CUT) && pool.is_whole(SegmentId(2)));
    assert_eq!(pool.loss().count(), 0, "asking touches nothing");
    let hold = Hold::by_broker(CUT.0);
    let mut bytes = Vec::new();
    pool.shared(&hold, 0, 3 * PAGE as u32).expect("inside the segment").append_to(&mut bytes);
    assert_eq!((bytes[8], bytes[PAGE as usize + 8], bytes[2 * PAGE as usize + 8]), (77, 0, 0));
    assert!(pool.is_lost(CUT.0) && !pool.is_lost(2));
    assert_eq!((pool.loss().segments(), pool.loss().pages()), (vec![CUT.0], 2));
    assert_eq!(pool.loss().page_between(at, at + (2 << 20)), Some(at + PAGE));
    // What is stored there is seen by nobody else, and ends nobody.
    pool.store(at + PAGE + 8, 5);
    assert_eq!(pool.load(at + PAGE + 8), 5);
}

#[test]
fn every_mapping_of_a_pool_in_a_process_knows_of_a_loss() {
    let (pool, file, at) = pool();
    let other = pool.read_only_file().expect("a second descriptor");
    let other = Pool::attach_file(other, Path::new("again"), false).expect("attached");
    file.set_len(at).expect("cut short");
    assert_eq!(other.load(at), 0);
    assert!(pool.is_lost(CUT.0));
    assert!(other.probe(CUT.0, 100, 3 * PAGE as u32) && !other.probe(2, 0, 64));
    // Its own page is as it was until it is touched here.
    assert_eq!(pool.load(at), 0);
    let (fresh, _file, _) = self::pool();
    assert!(!fresh.is_lost(CUT.0), "another pool has lost nothing");
}

#[test]
fn system_calls_say_so_and_a_probe_finds_it() {
    let (pool, file, at) = pool();
    file.set_len(at).expect("cut short");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let hold = Hold::by_broker(CUT.0);
    let bytes = pool.shared(&hold, 0, PREAMBLE_BYTES).expect("inside the segment");
    let error = send(&ours, &[bytes.piece()]).unwrap_err();
    assert!(is_poison(&error), "{error}");
    std::io::Write::write_all(&mut &theirs, b"something").expect("sent");
    let error = pool.recv(&ours, at, 9).unwrap_err();
    assert!(is_poison(&error), "{error}");
    assert_eq!(pool.loss().count(), 0, "the system told, and nobody touched it");
    assert!(pool.probe(CUT.0, 0, PREAMBLE_BYTES));
    let sent = send(&ours, &[bytes.piece()]);
    assert_eq!(sent.expect("zeros can be sent"), PREAMBLE_BYTES as usize);
}

#[test]
fn a_pool_that_was_cut_is_refused_unless_a_broker_hands_it_over() {
    let (pool, file, at) = pool();
    file.set_len(at).expect("cut short");
    let second = || pool.read_only_file().expect("a second descriptor");
    let refused = Pool::attach_file(second(), Path::new("it"), false).err().expect("too short");
    assert!(refused.to_string().contains("too short"), "{refused}");
    let handed = Pool::attach_handed(second(), false).expect("attached");
    assert_eq!(handed.load(at), 0);
    file.set_len(PAGE).expect("cut into the tables");
    assert!(Pool::attach_handed(second(), false).is_err());
}

#[test]
fn clients_go_on_without_a_log_and_control_and_brokers_end_with_a_sentence() {
    let (pool, file, at) = pool();
    give(&pool, SegmentKind::OrderLog);
    file.set_len(at).expect("cut short");
    assert_eq!(pool.load(at), 0, "a client");
    for (child, lost) in [("log", "an order log"), ("ring", "a ring of batch headers")] {
        let (output, said) = run(child);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
        assert!(said.contains(lost) && said.contains(&at.to_string()), "{said}");
        assert!(said.contains("--restore") && said.ends_with('\n'), "{said}");
    }
}

#[test]
fn without_the_tables_everybody_ends_with_a_sentence() {
    let (output, said) = run("tables");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    assert!(said.contains("at byte 8192 (the pool's tables)"), "{said}");
    // And where the tables that say what a segment is for are gone with it.
    let (output, said) = run("both");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    assert!(said.contains("(the pool's tables)"), "{said}");
}

#[test]
fn an_address_of_somebody_else_goes_to_whoever_handled_it_before() {
    let (output, said) = run("stranger");
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert_eq!(said, "");
    let (output, said) = run("stranger-alone");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    assert_eq!(said, "");
    let (output, said) = run("told");
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert_eq!(said, "");
}

/// Runs `child` of [`a_child`], and what it said.
fn run(child: &str) -> (Output, String) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_child", "--ignored", "--nocapture", "--quiet"])
        .env("POISON_CHILD", child)
        .output()
        .expect("this program once more");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

#[test]
#[ignore = "run by the tests above, which want to see it end"]
fn a_child() {
    let child = std::env::var("POISON_CHILD").unwrap_or_default();
    if child == "stranger" || child == "told" {
        handle();
    }
    let (pool, file, at) = pool();
    pool.take_part(Part::System);
    match child.as_str() {
        "log" => give(&pool, SegmentKind::OrderLog),
        "ring" => give(&pool, SegmentKind::Ring),
        _ => give(&pool, SegmentKind::Payload),
    }
    match child.as_str() {
        "log" | "ring" => {
            file.set_len(at).expect("cut short");
            pool.load(at);
        }
        "tables" => {
            file.set_len(2 * PAGE).expect("cut short");
            pool.load(2 * PAGE);
        }
        "both" => {
            file.set_len(2 * PAGE).expect("cut short");
            pool.load(at);
        }
        "told" => nix::sys::signal::raise(nix::sys::signal::SIGBUS).expect("raised"),
        _ => {
            let other = memfd("another", PAGE).expect("a memfd");
            let mapping = Mapping::new(other.as_fd(), PAGE, Backing::Shmem, true).expect("mapped");
            File::from(other).set_len(0).expect("cut short");
            mapping.load(0);
        }
    }
    panic!("{child} went on");
}

/// Somebody's own handler, which ends the process with a number.
fn handle() {
    extern "C" fn ends(_signal: libc::c_int) {
        // SAFETY: it ends the process and touches nothing.
        unsafe { libc::_exit(42) }
    }
    // SAFETY: a `sigaction` of zeros is one without flags, mask and handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ends as extern "C" fn(libc::c_int) as usize;
    // SAFETY: `action` is whole, its handler takes one number as an action without SA_SIGINFO has.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
}
