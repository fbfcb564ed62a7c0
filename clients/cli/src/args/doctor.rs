//! `landfall doctor`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::words;

/// `landfall doctor`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Looks at this machine only; landfall cluster is about brokers. A line says ok, warn (slower, or not
to be had, and nobody asked for it), fail (what --pool or --verbs asks for does not work) or
unknown, then what was found and why it matters; lines with $ below it mend it. The status is 1 when
a line says fail. Brokers refuse to start with the same sentences.

With -o json the document has these fields:
  schema_version  1
  status          the worst of all findings
  pool, verbs     what was named, or null
  findings        each with name, of (which device, port or path), status, found, why, mend
                  (commands), numbers (sizes are in bytes)

Examples:
  landfall doctor
  landfall doctor --verbs 10.0.0.1 --pool /dev/dax0.0
  landfall doctor -o json | jq '.findings[] | select(.status != \"ok\")'")]
pub struct Doctor {
    /// Judge this pool: a file or a devdax device, which need not be a pool yet
    #[arg(long, value_name = "PATH")]
    pub pool: Option<PathBuf>,
    /// Judge the RDMA device that has this IP address
    #[arg(long, value_name = "ADDRESS")]
    pub verbs: Option<IpAddr>,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<words::Format>,
}
