//! Waiting for a control that is just being started, or takes over.

use std::time::{Duration, Instant};

use landfall::{Client, Error};

use crate::error::Outcome;
use crate::frozen;
use crate::out::note;
use crate::units::Time;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Most starts and takeovers are over by then, and nothing has to be said of them.
const QUIET: Duration = Duration::from_millis(500);

/// Waits until control answers, for so long at most. Whatever else is wrong, and that nobody came,
/// is found by what comes next.
pub fn wait(client: &Client, most: Time) -> Outcome {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let look = Instant::now();
        let answer = frozen::look(client)?;
        let Some(why) = answer.err().filter(may_come).filter(|_| look.elapsed() < QUIET) else {
            return Ok(());
        };
        if began.elapsed() >= most.0 {
            return Ok(());
        }
        if !is_told && began.elapsed() >= QUIET {
            is_told = true;
            note(format_args!("{why}; it is waited for up to {most} (--wait)"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Asks again while control says that brokers may still come, for so long at most.
pub fn when_brokers_came<T>(most: Time, ask: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let answer = ask();
        let Err(error) = &answer else { return answer };
        let is_coming = matches!(error, Error::Control { code, .. } if code == "brokers_coming");
        if !is_coming || began.elapsed() >= most.0 {
            return answer;
        }
        if !is_told && began.elapsed() >= QUIET {
            is_told = true;
            note(format_args!("{error}; they are waited for up to {most} (--wait)"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether somebody may answer there in a moment: nobody listens yet, or who does stands by.
fn may_come(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Control { code, .. } => code == "standing_by" || code == "stopping",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_waited_for_as_long_as_they_may_come() {
        let refused = |code: &str| Error::Control {
            request: "POST /v1/topics".into(),
            status: 503,
            code: code.into(),
            message: "no".into(),
        };
        let asked = std::cell::Cell::new(0);
        let most = Time(Duration::from_secs(600));
        let answer = when_brokers_came(most, || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Err(refused("brokers_coming")) } else { Ok(asked.get()) }
        });
        assert_eq!(answer.unwrap(), 4);
        assert!(when_brokers_came(most, || Err::<(), _>(refused("few_disks"))).is_err());
        let at_once = Time(Duration::ZERO);
        assert!(when_brokers_came(at_once, || Err::<(), _>(refused("brokers_coming"))).is_err());
    }

    #[test]
    fn only_who_may_come_is_waited_for() {
        let control = |status, code: &str| Error::Control {
            request: "GET /v1/health".into(),
            status,
            code: code.into(),
            message: "no".into(),
        };
        let (who, address, why) = ("control".into(), "x".into(), "refused".into());
        assert!(may_come(&Error::Unreachable { who, address, why }));
        assert!(may_come(&control(503, "standing_by")));
        assert!(!may_come(&control(404, "not_found")));
        assert!(!may_come(&Error::NoReceipts));
    }
}
