//! What the system refuses for a moment: a disk or a host that answers with an error, rights that
//! are taken away, descriptors or memory that are short.
//!
//! Who looked meanwhile found less than there is. A file that was not read may have what is found
//! nowhere else, as one on a disk that does not answer may. Only what is not there, and what was
//! read and does not hold, is none of it.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::path::Path;

use nix::errno::Errno::{self, EMFILE, ENFILE, ENOMEM};

use crate::ask::Silent;

thread_local! {
    /// The first thing that was refused to this thread, or to who looked for it, since it asked.
    static REFUSED: RefCell<Option<Silent>> = const { RefCell::new(None) };
}

/// Whether an error leaves open what is there.
pub fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{IsADirectory, NotADirectory, NotFound};
    // Something else is where a file or a directory was: what was there is not there.
    !matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

/// Keeps an error in mind if it is of that kind.
pub(crate) fn note(call: &str, path: &Path, error: &io::Error) {
    if is_refusal(error) {
        let is_short =
            matches!(error.raw_os_error().map(Errno::from_raw), Some(EMFILE | ENFILE | ENOMEM));
        let why = || format!("{call} {}: {error}", path.display());
        say(|| Silent { may_last: !is_short, ..Silent::refused(path, why()) });
    }
}

/// Keeps in mind what was refused, unless something is kept already.
pub(crate) fn say(refused: impl FnOnce() -> Silent) {
    REFUSED.with_borrow_mut(|kept| {
        kept.get_or_insert_with(refused);
    });
}

/// Looks at something, and says what the system refused meanwhile, if it did: what was found may
/// be less than there is. Looks that other threads make for this one count.
pub fn during<T>(look: impl FnOnce() -> T) -> (T, Option<Silent>) {
    let before = REFUSED.take();
    let found = look();
    let refused = REFUSED.take();
    REFUSED.set(before.or_else(|| refused.clone()));
    (found, refused)
}

/// Looks at something of which it does not matter whether the system refuses it.
pub(crate) fn unsaid<T>(look: impl FnOnce() -> T) -> T {
    let before = REFUSED.take();
    let found = look();
    REFUSED.set(before);
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::FileError;
    use crate::ask::ask;

    fn meets(errno: i32) -> impl Fn() {
        move || {
            let error = io::Error::from_raw_os_error(errno);
            drop(FileError::io("read", Path::new("/d/f"))(error));
        }
    }

    #[test]
    fn what_is_refused_is_known_to_who_asked_and_what_is_not_there_is_no_refusal() {
        for errno in [nix::libc::EIO, nix::libc::EACCES, nix::libc::ESTALE, nix::libc::EMFILE] {
            let ((), refused) = during(meets(errno));
            assert!(refused.is_some_and(|refused| refused.to_string().contains("read /d/f: ")));
        }
        for errno in [nix::libc::ENOENT, nix::libc::ENOTDIR, nix::libc::EISDIR] {
            assert_eq!(during(meets(errno)), ((), None));
        }
        // In a directory's thread, and then in nobody's look.
        let data = PathBuf::from("/short-is-nowhere");
        let refused = during(|| ask(&data, meets(nix::libc::EIO))).1;
        assert_eq!(refused.map(|refused| refused.path), Some(PathBuf::from("/d/f")));
        assert_eq!(during(|| ask(&data, || 1)), (Ok(1), None));
        // Who asked for the whole hears of its parts.
        assert!(during(|| assert!(during(meets(nix::libc::EIO)).1.is_some())).1.is_some());
    }
}
