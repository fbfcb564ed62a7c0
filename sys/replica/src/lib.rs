//! Replica files: their names, reading them, finding and cutting a torn tail.
//!
//! What the bytes mean is in [`landfall_layout::replica`]. This crate is what a broker and the
//! offline tools share: where the files of a topic are, what holds in them, and what to do about
//! an end that does not. It never writes a record: that is the broker's replicator.
//!
//! | module | what |
//! |---|---|
//! | [`ask`] | looks at directories that may not answer |
//! | [`short`] | what was refused for want of something that comes back |
//! | [`watch`] | looks at several in one go, without those that do not answer |
//! | [`names`] | directories and files of topics and sources |
//! | [`owner`] | whose a data directory is now |
//! | [`numbers`] | whose it ever was, under which pools |
//! | [`there`] | which directories a topic has to have, and whether they are there |
//! | [`topic`] | `topic.json`: a topic's identity and settings, in words |
//! | `word` | what others say beside it, a file each |
//! | `document` | its bytes: in two files, written over in place, of which one always holds |
//! | [`deletions`] | which topics were deleted, also where nothing of them was |
//! | [`lives`] | where logs ended and went on, from one pool to the next |
//! | [`holes`] | what its own copies lack |
//! | [`end`] | how far its files reach, against how far a pool is |
//! | `landed` | what a broker landed, and who keeps it, where not every directory answers |
//! | `unheard` | what does not answer, or is refused |
//! | `reach` | how far a topic's logs are whole, whoever kept them |
//! | [`walk`] | the records of one file, one after the other, checked, over what does not hold |
//! | [`damage`] | bytes that do not hold, and what is known of what was there |
//! | `rebuilt` | a file's header from its name and its records |
//! | [`survey`] | what a file or a source's files hold, in numbers |
//! | [`mend`] | ends that a crash left, headers, and making what was created stay |
//! | [`copy`] | one replica read from some log index on, while it grows |
//! | `choice` | which copy of a log has what comes next, and what none of them has |
//! | [`merge`] | the replicas of all brokers of a topic, put together again in the log's order |
//! | [`lookup`] | where a position or a time is |

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod ask;
pub mod away;
mod choice;
pub mod copy;
pub mod damage;
pub mod deletions;
mod document;
pub mod end;
pub mod error;
pub mod holes;
mod landed;
pub mod lives;
pub mod lookup;
pub mod mend;
pub mod merge;
pub mod names;
pub mod numbers;
pub mod once;
mod own;
pub mod owner;
mod reach;
mod rebuilt;
pub mod short;
pub mod survey;
pub mod there;
pub mod topic;
mod unheard;
pub mod walk;
pub mod watch;
mod word;

pub use ask::{Silent, ask};
pub use damage::Damage;
pub use error::FileError;
pub use lives::{Begins, Ended, EndedLog, Resumed, Row, Skipped, Skips, Unkept};
pub use merge::{Merge, Picked};
pub use numbers::Numbers;
pub use survey::{FileSurvey, SourceSurvey};
pub use topic::TopicFile;
pub use unheard::Unheard;
pub use walk::{Sight, Step, Walk};
