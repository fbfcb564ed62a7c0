//! Subscribers that read the log and the segments by themselves, through windows.

use landfall_layout::SegmentId;
use landfall_layout::TopicId;
use landfall_layout::frame::Frame;
use landfall_layout::limits::{BROKERS_MAX, LINE_BYTES, LOGS_PER_TOPIC};
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::verbs::{Greeting, SEGMENT_SLOTS};
use landfall_nic::{NicError, Queue, Rights, Window};

use super::door::no_room;
use super::link::{Link, Work};
use super::side::Side;
use crate::env::Env;

/// A segment that retention wants is asked back, and taken back after this long.
const GRACE_NS: u64 = 1_000_000_000;
/// Slots of the windows that stand open as long as the connection.
const FRONTIERS: u8 = 61;
const TABLES: u8 = 62;
const HEADERS: u8 = 63;
/// `ExtentDone` for a segment that the topic does not have.
const NOT_YOURS: u32 = u32::MAX;

const READ_ONLY: Rights = Rights { read: true, write: false };

/// A reader's windows.
pub struct Reading {
    pub topic: TopicId,
    /// Kept bound for as long as the queue lives.
    _tables: Window,
    _frontiers: Window,
    _headers: Window,
    slots: Vec<Slot>,
    /// A segment that was asked for and for which there is no room yet.
    pending: Option<u32>,
}

struct Slot {
    window: Window,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Free,
    Open {
        segment: u32,
        asked_ns: Option<u64>,
    },
    /// To be invalidated as soon as the queue has room.
    Ending {
        segment: u32,
    },
    /// Being invalidated.
    Closing {
        segment: u32,
    },
}

impl Stage {
    fn segment(self) -> Option<u32> {
        match self {
            Self::Free => None,
            Self::Open { segment, .. } | Self::Ending { segment } | Self::Closing { segment } => {
                Some(segment)
            }
        }
    }
}

impl Reading {
    /// Opens the topic's lines and the segment headers, and says in the greeting where they are.
    pub fn open(
        queue: &mut Queue,
        env: &Env,
        side: &Side,
        topic: TopicId,
        greeting: &mut Greeting,
    ) -> Result<Self, NicError> {
        let geometry = env.pool.geometry();
        let mut bound = |slot: u8, at: u64, bytes: u64| {
            let mut window = queue.window()?;
            let how = Work::Bound(slot).how();
            let key = queue.bind(&mut window, side.pool(), at, bytes, READ_ONLY, how);
            let key = key.map_err(|_| no_room("ibv_post_send", "a window on the tables"))?;
            Ok::<_, NicError>((window, key))
        };
        greeting.tables_at = geometry.log_lines(topic.slot());
        let bytes = LOGS_PER_TOPIC as u64 * 2 * LINE_BYTES;
        let (tables, key) = bound(TABLES, greeting.tables_at, bytes)?;
        greeting.tables_key = key;
        greeting.frontiers_at = geometry.frontier(topic.slot(), 0);
        let bytes = BROKERS_MAX as u64 * LINE_BYTES;
        let (frontiers, key) = bound(FRONTIERS, greeting.frontiers_at, bytes)?;
        greeting.frontiers_key = key;
        let first = geometry.segment_header(SegmentId(0));
        greeting.headers_at = first.expect("a pool has segments");
        let bytes = u64::from(geometry.segments()) * LINE_BYTES;
        let (headers, key) = bound(HEADERS, greeting.headers_at, bytes)?;
        greeting.headers_key = key;
        let mut slots = Vec::with_capacity(SEGMENT_SLOTS);
        for _ in 0..SEGMENT_SLOTS {
            slots.push(Slot { window: queue.window()?, stage: Stage::Free });
        }
        Ok(Self {
            topic,
            _tables: tables,
            _frontiers: frontiers,
            _headers: headers,
            slots,
            pending: None,
        })
    }

    /// Opens a segment of the topic; the frame that answers. `None`: not at this moment.
    #[cold]
    pub fn wanted(&mut self, env: &Env, link: &mut Link, segment: u32) -> Option<Frame> {
        let geometry = env.pool.geometry();
        let header = env.pool.segment_header(SegmentId(segment));
        let is_ours =
            header.as_ref().and_then(|header| What::unpack(header.what).ok()).is_some_and(|what| {
                what.topic == self.topic
                    && matches!(what.kind, SegmentKind::Payload | SegmentKind::OrderLog)
            });
        let place = geometry.segment(SegmentId(segment)).filter(|_| is_ours);
        let (Some(at), Some(header)) = (place, header) else {
            return Some(Frame::ExtentDone { extent: NOT_YOURS });
        };
        let free = self.slots.iter().position(|slot| slot.stage == Stage::Free);
        let Some(i) = free else {
            // A reader of ours gives one back first; another one waits for ever, which harms none.
            return None;
        };
        let bytes = geometry.segment_bytes();
        let how = Work::Bound(i as u8).how();
        let window = &mut self.slots[i].window;
        let key = link.queue.bind(window, link.side.pool(), at, bytes, READ_ONLY, how).ok()?;
        self.slots[i].stage = Stage::Open { segment, asked_ns: None };
        Some(Frame::Extent {
            extent: i as u32,
            segment,
            generation: header.generation,
            offset: 0,
            bytes: bytes as u32,
            key,
            at,
        })
    }

    /// The segment that waits to be opened, if there is one.
    pub fn take_pending(&mut self) -> Option<u32> {
        self.pending.take()
    }

    /// A segment is to be opened next.
    pub fn wait_for(&mut self, segment: u32) {
        self.pending = Some(segment);
    }

    /// The reader needs a slot no more. False: it never had it.
    pub fn done(&mut self, link: &mut Link, slot: u8) -> bool {
        let Some(known) = self.slots.get_mut(usize::from(slot)) else { return false };
        if let Stage::Open { segment, .. } = known.stage {
            known.stage = Stage::Ending { segment };
            self.close_ending(link);
        }
        true
    }

    /// Invalidates the windows of what is ending, as far as the queue takes that.
    pub fn close_ending(&mut self, link: &mut Link) {
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let Stage::Ending { segment } = slot.stage else { continue };
            if link.queue.invalidate(&mut slot.window, Work::Invalidated(i as u8).how()).is_ok() {
                slot.stage = Stage::Closing { segment };
            }
        }
    }

    /// A window is invalid for certain.
    pub fn closed(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.stage = Stage::Free;
        }
    }

    /// Whether something waits for room in the queue or for a slot.
    pub fn is_ending(&self) -> bool {
        self.pending.is_some()
            || self.slots.iter().any(|slot| matches!(slot.stage, Stage::Ending { .. }))
    }

    /// Whether the reader may be reading a segment that retention wants: it is asked for it, and
    /// after a while no more. A frame is for the reader.
    #[cold]
    pub fn release(&mut self, segment: u32, now_ns: u64) -> (bool, Option<Frame>) {
        let found = self.slots.iter_mut().enumerate();
        let mut held = false;
        let mut ask = None;
        for (i, slot) in found.filter(|(_, slot)| slot.stage.segment() == Some(segment)) {
            held = true;
            match &mut slot.stage {
                Stage::Open { asked_ns: asked @ None, .. } => {
                    *asked = Some(now_ns);
                    ask = Some(Frame::ExtentDone { extent: i as u32 });
                }
                Stage::Open { asked_ns: Some(asked), .. } if now_ns > *asked + GRACE_NS => {
                    slot.stage = Stage::Ending { segment };
                }
                _ => {}
            }
        }
        (held, ask)
    }
}
