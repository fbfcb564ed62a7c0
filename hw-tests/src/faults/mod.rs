//! Faults beside kills: the real processes paused, their clocks stepped, their resources taken,
//! their files and memory damaged, doubled, attacked, restarted in every order, and the pool lost.
//!
//! A [`fault`] is a value with a text. A run ([`story`]) of a [`scene`] has two topics, each with
//! publishers and readers of its own, whose messages name topic, publisher and number under a
//! checksum. When the faults are over everybody has to get on; then everything is read, and the
//! [history](crate::history) of each topic judged: what was acknowledged is there, in one order, no
//! reader saw another topic's bytes, and nobody was told of losses that were none.
//!
//! | module | what |
//! |---|---|
//! | [`fault`], [`text`] | what goes wrong, as a value and as a word on a command line |
//! | [`draw`], [`mod@shrink`] | faults from a seed; the smallest ones that still fail |
//! | [`scene`], [`story`], [`judge`] | systems and topics, a run, and what has to hold after it |
//! | [`troupe`], [`seat`] | the processes, started again when they end |
//! | [`acts`], `apply`, `damage`, `twin` | faults applied to them |
//! | [`payload`], [`client`], [`hostile`] | messages, honest clients, and others |
//! | [`campaign`] | many runs, some at a time |

pub mod acts;
mod apply;
pub mod campaign;
pub mod client;
pub(crate) mod damage;
pub mod draw;
pub mod fault;
pub mod hostile;
pub mod judge;
pub mod payload;
pub mod scene;
pub mod seat;
pub mod shrink;
pub mod story;
pub mod text;
pub mod troupe;
mod twin;
