//! `landfall verify` and `landfall recover`.

use std::path::PathBuf;

use clap::Args;

use crate::words;

/// `landfall verify`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Looks and writes nothing: at a pool (a file on tmpfs or hugetlbfs, a devdax device, or a copy of one
on a disk), or at a directory of replicas (a broker's, or one with a broker-N for each). A line says
error (a promise is broken, or something can no longer be read), warning (not as it should be,
and nothing was lost) or note; lines below say what to do. A pool may be at work meanwhile: then
only what stands there in every look is said.

Exit status:
  0  no errors
  1  errors
  2  it could not be checked, or not all of it, and nothing else is wrong; or the command line is
     wrong

With -o json, or --json, the document has these fields:
  schema_version  1
  path, kind      what was looked at: a pool or replicas
  status          ok, note, warning or error: the worst of all
  moving, looks   pool: whether somebody was at work on it, and how often it was looked at
  looked          how much of everything was looked at
  topics          replicas: what is there of each topic, and what is not
  counts          errors, warnings, notes, and more: those that are counted and not listed
  findings        each with severity, check, of, at (the byte), found, mend

Examples:
  landfall verify /dev/shm/landfall
  landfall verify /var/lib/landfall -o json | jq '.findings[] | select(.severity == \"error\")'")]
pub struct Verify {
    /// The pool or the directory
    #[arg(value_name = "POOL|DIR")]
    pub path: PathBuf,
    /// Print one document; the same as -o json
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<words::Format>,
}

/// `landfall recover`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
A directory of replicas: cuts ends off that a crash left torn, keeping what may still be of use
beside the file, and says what there is of each topic: which entries and positions, what is
missing, and what was only in memory. The brokers that write there have to be stopped.

A pool: refuses while a process holds it. Mends what follows from the rest of the pool and what
control does not find again by itself: segments without a use, ends and positions of chains, links
back, counts of frontiers. Says what control mends when it starts, and what nobody can.

--dry-run says what would be done, and does nothing.

Exit status:
  0  what is left can be used
  1  something is lost or cannot be mended
  2  it could not be looked at, and why; or the command line is wrong

Examples:
  landfall recover /var/lib/landfall
  landfall recover --dry-run /dev/shm/landfall")]
pub struct Recover {
    /// The pool or the directory
    #[arg(value_name = "POOL|DIR")]
    pub path: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print one document; the same as -o json
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<words::Format>,
}
