//! The handler of SIGBUS.

use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::segment::SegmentKind;

use super::Part;
use super::watch::{Met, find};

impl Met {
    /// What is lost with the page where nothing can go on without it: the tables, or the kind of
    /// its segment.
    fn is_vital(&self) -> Option<&'static str> {
        let watch = self.watch;
        let head_bytes = watch.head_bytes.load(Ordering::Relaxed);
        if self.page_at < head_bytes {
            return Some("the pool's tables");
        }
        if watch.part.load(Ordering::Relaxed) != Part::System as u8 {
            return None;
        }
        let kinds = self.segments().filter_map(|segment| {
            let at = watch.headers_at.load(Ordering::Relaxed) + segment * LINE_BYTES;
            let address = (self.base + at as usize) as *const AtomicU64;
            // SAFETY: the header table lies in the mapping's head, a line for each segment, and
            // the mapping is in use by this thread. If that page cannot be read either, the
            // handler runs once more, on top of this, and ends the process.
            let what = unsafe { (*address).load(Ordering::Relaxed) };
            match what & 0xff {
                kind if kind == SegmentKind::Ring as u64 => Some("a ring of batch headers"),
                kind if kind == SegmentKind::OrderLog as u64 => Some("an order log"),
                _ => None,
            }
        });
        kinds.into_iter().next()
    }

    /// Segments that the page has a part of.
    fn segments(&self) -> impl Iterator<Item = u64> + use<> {
        let head_bytes = self.watch.head_bytes.load(Ordering::Relaxed);
        let segment_bytes = self.watch.segment_bytes.load(Ordering::Relaxed).max(1);
        let segments = u64::from(self.watch.segments.load(Ordering::Relaxed));
        let first = self.page_at.saturating_sub(head_bytes) / segment_bytes;
        let end = (self.page_at + self.page_bytes).saturating_sub(head_bytes);
        first..end.div_ceil(segment_bytes).min(segments)
    }

    /// Notes the loss and puts zeros where the page was. Whether that could be done.
    fn cover(&self) -> bool {
        let watch = self.watch;
        let protection = match watch.is_writable.load(Ordering::Relaxed) {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        // SAFETY: the loss lives as long as the watch's mapping, which this thread uses.
        if let Some(loss) = unsafe { watch.loss.load(Ordering::Relaxed).as_ref() } {
            // Before the page: who finds zeros there also finds that the segment is lost.
            loss.note_page(self.page_at);
            self.segments().for_each(|segment| {
                loss.mark(segment as u32);
            });
        }
        let flags = libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
        let address = (self.base + self.page_at as usize) as *mut libc::c_void;
        // SAFETY:
        // - the range is a whole page of a mapping of ours, which stays ours: only what stands
        //   behind it changes;
        // - whoever has bytes of it borrowed could not read them as they were either: this thread
        //   just failed to.
        let now =
            unsafe { libc::mmap(address, self.page_bytes as usize, protection, flags, -1, 0) };
        now == address
    }
}

/// What stood for SIGBUS before us.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once in a process.
pub(super) fn install() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // SAFETY: a `sigaction` of zeros is one without flags, mask and handler.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: with no new action, the call only writes the old one into `before`.
        unsafe { libc::sigaction(libc::SIGBUS, null(), &raw mut before) };
        BEFORE.get_or_init(|| before);
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            on_bus_error;
        action.sa_sigaction = handler as usize;
        // On the alternate stack, where the thread has one: a stack that overflows into a file is
        // not ours to cure, but whose it is has to get to hear of it. And again while it runs: the
        // tables that say what a page was for may be gone too.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
        // SAFETY:
        // - `action` is whole: a handler of the form that SA_SIGINFO asks for, and an empty mask;
        // - the handler keeps to what a handler may do: it takes no lock and allocates nothing.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) };
    });
}

/// Codes of a page that cannot be had: bus address error, and the two of failed hardware.
const PAGE_CODES: [libc::c_int; 3] = [libc::BUS_ADRERR, libc::BUS_MCEERR_AR, libc::BUS_MCEERR_AO];

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the location of this thread's error number, which is there as long as the thread.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel hands a handler with SA_SIGINFO a whole `siginfo_t`; that of SIGBUS has
    // an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let met = if PAGE_CODES.contains(&code) { find(address) } else { None };
    match met {
        None => pass_on(signal, code, info, context),
        // Told in advance, to any thread: whoever reads the page will meet it.
        Some(_) if code == libc::BUS_MCEERR_AO => {}
        Some(met) => {
            let vital = met.is_vital();
            if vital.is_some() || !met.cover() {
                end(&met, vital.unwrap_or("a page that could not be covered"));
            }
        }
    }
    // SAFETY: as above. The interrupted code must not see what the calls here have left.
    unsafe { *libc::__errno_location() = errno };
}

/// The page is not ours: whoever handled the signal before shall, and else the system.
fn pass_on(
    signal: libc::c_int,
    code: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // Sent by somebody, or only told in advance: the instruction is not going to fail again.
    let is_told = code <= 0 || code == libc::BUS_MCEERR_AO;
    let before = BEFORE.get();
    let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    match handler {
        libc::SIG_IGN if is_told => {}
        libc::SIG_IGN | libc::SIG_DFL => die(is_told),
        handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
            // SAFETY: with SA_SIGINFO the word is a function of this form, which the process had
            // for this very signal, and it gets what the kernel gave us.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO it is a function of one number.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Ends the process as it would have ended without us: by the instruction that failed, which runs
/// again, or, where none did, by the signal once more.
fn die(is_told: bool) {
    // SAFETY: a `sigaction` of zeros is the default action, with no flags and an empty mask.
    let action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` is whole, and the old one is not asked for.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) };
    if is_told {
        // SAFETY: it takes a number and touches nothing of ours.
        unsafe { libc::raise(libc::SIGBUS) };
    }
}

/// Says why it cannot go on, and ends the process.
fn end(met: &Met, lost: &str) {
    let mut text = Text { bytes: [0; 512], used: 0 };
    text.push("landfall: the pool's memory cannot be read at byte ");
    text.number(met.page_at);
    text.push(" (");
    text.push(lost);
    text.push(
        "), and nothing can go on without that. Batches on disk are safe: stop what is left, make \
         a new pool with landfall-control --restore DIR for each broker's --data directory, and \
         start the brokers again.\n",
    );
    // SAFETY: the buffer is ours and `used` bytes of it are filled. If nobody can be told, the
    // process ends all the same.
    unsafe { libc::write(2, text.bytes.as_ptr().cast(), text.used) };
    die(false);
}

/// A sentence, made without an allocation.
struct Text {
    bytes: [u8; 512],
    used: usize,
}

impl Text {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = byte;
                self.used += 1;
            }
        }
    }

    fn number(&mut self, number: u64) {
        let mut digits = [b'0'; 20];
        let mut rest = number;
        let mut first = digits.len();
        while first > 0 && (rest > 0 || first == digits.len()) {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.push(std::str::from_utf8(&digits[first..]).unwrap_or("?"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_without_an_allocation() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            let mut text = Text { bytes: [0; 512], used: 0 };
            text.number(number);
            assert_eq!(std::str::from_utf8(&text.bytes[..text.used]), Ok(&*number.to_string()));
        }
    }
}
