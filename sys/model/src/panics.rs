//! Panics of protocol code under exploration: they are findings, and not to be printed each time.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Runs `f`; a panic in it comes back as its message and place.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if EXPLORING.get() {
                SAID.with_borrow_mut(|said| *said = info.to_string());
            } else {
                before(info);
            }
        }));
    });
    EXPLORING.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    EXPLORING.set(false);
    result.map_err(|_| SAID.take())
}
