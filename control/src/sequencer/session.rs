//! What the sequencer knows of each session, by the index of the session's line.

use landfall_layout::BrokerId;
use landfall_layout::limits::{SESSIONS_MAX, STREAM_WINDOW};
use landfall_layout::session::{SessionState, Standing};

use super::SessionView;
use super::hold::{NOWHERE, Place};
use super::window::Window;

/// One session. Two share a line, so that 10,000 of them stay in a core's own cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Session {
    pub client: u64,
    pub next_seq: u64,
    pub epoch: u32,
    /// Head of the list of what is held of it.
    pub first_held: Place,
    gap: u32,
    pub state: SessionState,
    touched: bool,
    /// Order `stream`: how far the first sequence that is not in the log is below the next one.
    pub behind: u16,
}

const _: () = {
    assert!(size_of::<Session>() == 32);
    assert!(STREAM_WINDOW <= u16::MAX as u64, "`behind` is at most the window");
};

const NO_GAP: u32 = u32::MAX;

impl Session {
    pub const FREE: Self = Self {
        client: 0,
        next_seq: 0,
        epoch: 0,
        first_held: NOWHERE,
        gap: NO_GAP,
        state: SessionState::Free,
        touched: false,
        behind: 0,
    };

    /// Whether a batch sealed by that client under that epoch may be ordered.
    #[inline]
    pub fn takes(&self, client: u64, epoch: u32) -> bool {
        self.state == SessionState::Active && self.client == client && self.epoch == epoch
    }

    /// Everything below is in the log, or forgotten.
    #[inline]
    pub fn floor(&self) -> u64 {
        self.next_seq - u64::from(self.behind)
    }

    pub fn view(&self, index: u32) -> SessionView {
        let standing = Standing { epoch: self.epoch, state: self.state };
        let (client, next_seq) = (self.client, self.next_seq);
        let floor = self.floor();
        SessionView { index, client, standing, next_seq, floor, known_from: 0, had: 0 }
    }

    /// Moves the next sequence, and remembers in `touched` that it moved.
    #[inline]
    pub fn advance(&mut self, index: u32, next_seq: u64, touched: &mut Vec<u32>) {
        self.next_seq = next_seq;
        self.touch(index, touched);
    }

    /// Remembers in `touched` that something of it moved.
    #[inline]
    pub fn touch(&mut self, index: u32, touched: &mut Vec<u32>) {
        if !self.touched {
            self.touched = true;
            touched.push(index);
        }
    }
}

/// Sessions of one page. Session lines are the pool's, so one topic's are scattered.
const PAGE: usize = 64;

/// A session that waits for a batch while later ones are here.
struct Gap {
    session: u32,
    /// Rings in which something is held of it, and some in which that is over, a bit each.
    rings: u32,
    since_ns: u64,
}

/// All sessions of a topic.
///
/// A slot names its session by an index from shared memory: an index that nothing was opened
/// under finds nothing.
#[derive(Default)]
pub(super) struct Sessions {
    pages: Vec<Option<Box<[Session; PAGE]>>>,
    /// What is in the log of each session; only for order `stream`.
    windows: Vec<Option<Box<Window>>>,
    /// Sessions that there is a page for. The two lists below have room for as many, so they
    /// never grow while batches are ordered.
    known: usize,
    touched: Vec<u32>,
    gaps: Vec<Gap>,
    /// No gap is older than this; it may be lower than the oldest one.
    oldest_gap_ns: u64,
}

impl Sessions {
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Session> {
        let page = self.pages.get(index as usize / PAGE)?.as_deref()?;
        Some(&page[index as usize % PAGE])
    }

    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        let page = self.pages.get_mut(index as usize / PAGE)?.as_deref_mut()?;
        Some(&mut page[index as usize % PAGE])
    }

    /// The session of that index, made free if there was none.
    pub fn make(&mut self, index: u32) -> &mut Session {
        assert!(index < SESSIONS_MAX, "session {index}: a pool has at most {SESSIONS_MAX}");
        let page = index as usize / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let known = &mut self.known;
        let sessions = self.pages[page].get_or_insert_with(|| {
            *known += PAGE;
            Box::new([Session::FREE; PAGE])
        });
        self.touched.reserve(*known - self.touched.len());
        self.gaps.reserve(*known - self.gaps.len());
        &mut sessions[index as usize % PAGE]
    }

    /// A session of order `stream` and what is in the log of it, made empty if there was nothing.
    pub fn make_window(&mut self, index: u32) -> (&mut Session, &mut Window) {
        self.make(index);
        let at = index as usize;
        if at >= self.windows.len() {
            self.windows.resize_with(at + 1, || None);
        }
        let page = self.pages[at / PAGE].as_deref_mut().expect("it was just made");
        let window = self.windows[at].get_or_insert_with(|| Box::new(Window::new()));
        (&mut page[at % PAGE], window)
    }

    /// The same, made when the session was opened, and the list that [`Session::touch`] puts it on.
    pub fn enter_window(
        &mut self,
        index: u32,
    ) -> Option<(&mut Session, &mut Window, &mut Vec<u32>)> {
        let at = index as usize;
        let page = self.pages.get_mut(at / PAGE)?.as_deref_mut()?;
        let window = self.windows.get_mut(at)?.as_deref_mut()?;
        Some((&mut page[at % PAGE], window, &mut self.touched))
    }

    /// A session as it is seen from outside.
    pub fn view(&self, index: u32) -> Option<SessionView> {
        let view = self.get(index).filter(|of| of.state != SessionState::Free)?.view(index);
        let window = self.windows.get(index as usize).and_then(Option::as_deref);
        let (known_from, had) = window.map_or((0, 0), |window| (window.known_from, window.had));
        Some(SessionView { known_from, had, ..view })
    }

    /// A session, and the list that [`Session::advance`] puts it on.
    #[inline]
    pub fn enter(&mut self, index: u32) -> Option<(&mut Session, &mut Vec<u32>)> {
        let page = self.pages.get_mut(index as usize / PAGE)?.as_deref_mut()?;
        Some((&mut page[index as usize % PAGE], &mut self.touched))
    }

    /// Calls `each` for every session that moved since the last time, once.
    pub fn drain_touched(&mut self, mut each: impl FnMut(SessionView)) {
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            if let Some(session) = self.get_mut(index) {
                session.touched = false;
            }
            // A forgotten session's line is somebody else's.
            if let Some(view) = self.view(index) {
                each(view);
            }
        }
        self.touched = touched;
    }

    /// Notes that a batch of the session is held in a broker's ring: its gap is as old as its
    /// first hold.
    pub fn open_gap(&mut self, index: u32, broker: BrokerId, now_ns: u64) {
        let ring = 1 << broker.index();
        let gap = self.gaps.len() as u32;
        let Some(session) = self.get_mut(index) else { return };
        if session.gap != NO_GAP {
            let gap = session.gap as usize;
            self.gaps[gap].rings |= ring;
            return;
        }
        session.gap = gap;
        self.oldest_gap_ns = if gap == 0 { now_ns } else { self.oldest_gap_ns.min(now_ns) };
        self.gaps.push(Gap { session: index, rings: ring, since_ns: now_ns });
    }

    /// Notes that the session moved or lost its holds: it waits anew for its next batch, or for
    /// none.
    pub fn renew_gap(&mut self, index: u32, now_ns: u64) {
        let Some(session) = self.get_mut(index) else { return };
        let gap = session.gap as usize;
        if session.gap == NO_GAP {
            return;
        }
        if session.first_held != NOWHERE {
            self.gaps[gap].since_ns = now_ns;
            return;
        }
        session.gap = NO_GAP;
        self.gaps.swap_remove(gap);
        if let Some(moved) = self.gaps.get(gap).map(|gap| gap.session)
            && let Some(moved) = self.get_mut(moved)
        {
            moved.gap = gap as u32;
        }
    }

    /// What is known of a session's gap, if it has one: rings in which something is held of it,
    /// perhaps some more, and since when it waits.
    pub fn gap_of(&self, index: u32) -> Option<(u32, u64)> {
        let gap = self.gaps.get(self.get(index)?.gap as usize)?;
        Some((gap.rings, gap.since_ns))
    }

    /// Which sessions wait for a batch, in no order.
    pub fn with_gaps(&self) -> impl Iterator<Item = u32> {
        self.gaps.iter().map(|gap| gap.session)
    }

    /// Of which session a gap is, and the rings in which something is held of it, a bit each.
    pub fn gap_at(&self, at: usize) -> (u32, u32) {
        (self.gaps[at].session, self.gaps[at].rings)
    }

    /// Says in which rings exactly something is held of the session with this gap.
    pub fn set_gap_rings(&mut self, at: usize, rings: u32) {
        self.gaps[at].rings = rings;
    }

    /// Sessions that wait for a batch.
    pub fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// No gap was opened or renewed before this, if there is one.
    pub fn oldest_gap_ns(&self) -> Option<u64> {
        (!self.gaps.is_empty()).then_some(self.oldest_gap_ns)
    }

    /// Whether a gap may be older than `lease_ns`. If so, [`Sessions::next_expired`] has to be
    /// asked until it has seen every gap: it finds anew which is the oldest.
    pub fn begin_expiry(&mut self, now_ns: u64, lease_ns: u64) -> bool {
        let late = self.oldest_gap_ns().is_some_and(|at| now_ns.saturating_sub(at) > lease_ns);
        if late {
            self.oldest_gap_ns = u64::MAX;
        }
        late
    }

    /// From the gap at `at` on, the first session whose gap is older than `lease_ns`. The caller
    /// closes that gap, and another takes its place in the list.
    pub fn next_expired(&mut self, at: &mut usize, now_ns: u64, lease_ns: u64) -> Option<u32> {
        while let Some(gap) = self.gaps.get(*at) {
            if now_ns.saturating_sub(gap.since_ns) > lease_ns {
                return Some(gap.session);
            }
            self.oldest_gap_ns = self.oldest_gap_ns.min(gap.since_ns);
            *at += 1;
        }
        None
    }
}
