//! What the sequencer knows of each session, by the index of the session's line.

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
    pub state: SessionState,
    touched: bool,
    /// Order `stream`: how far the first sequence that is not in the log is below the next one.
    pub behind: u16,
}

const _: () = {
    assert!(size_of::<Session>() == 32);
    assert!(STREAM_WINDOW <= u16::MAX as u64, "`behind` is at most the window");
};

impl Session {
    pub const FREE: Self = Self {
        client: 0,
        next_seq: 0,
        epoch: 0,
        first_held: NOWHERE,
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

/// All sessions of a topic.
///
/// A slot names its session by an index from shared memory: an index that nothing was opened
/// under finds nothing.
#[derive(Default)]
pub(super) struct Sessions {
    pages: Vec<Option<Box<[Session; PAGE]>>>,
    /// What is in the log of each session; only for order `stream`.
    windows: Vec<Option<Box<Window>>>,
    /// Sessions that there is a page for. The list below has room for as many, so it never grows
    /// while batches are ordered.
    known: usize,
    touched: Vec<u32>,
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
}
