//! Processes beside those of a run: second ones where one is meant, and hostile clients.

use std::path::PathBuf;
use std::process::Command;

use super::acts::Undo;
use super::fault::{Attack, Space, Who};
use super::seat::{self, last_lines};
use super::story::{self, DISKS, RESTORES};
use super::troupe::Troupe;
use crate::Failure;
use crate::sweep::child::Child;

/// Whose clocks they have.
pub(super) const OTHERS: &str = "others";

/// Processes that end with their fault. Dropping it kills them.
pub(super) struct Extra {
    children: Vec<(String, Child)>,
    /// Whose place they would take, and which life that was in. None: anybody's, who ends.
    of: Option<(Who, u32)>,
    /// They have no business serving at all.
    never: bool,
}

impl Extra {
    /// Ends them. A second one that serves beside the first is a failure.
    pub(super) fn end(mut self, troupe: &Troupe) -> Result<String, Failure> {
        let mut said = Vec::new();
        for (name, child) in &mut self.children {
            let ended = child.ended()?;
            let sentence = last_lines(&child.said(), 2);
            let serves = ended.is_none() && child.is_ready();
            let first_serves = self.of.is_some_and(|(who, life)| {
                let seat = troupe.seats.get(&who);
                seat.is_some_and(|seat| seat.lives == life && seat.is_ready())
            });
            ensure!(
                !(serves && (first_serves || self.never)),
                "{name} serves beside the first one; it said: {}",
                child.said().trim()
            );
            let is_silent = ended.is_some_and(|status| !status.success()) && sentence.is_empty();
            ensure!(!is_silent, "{name} ended without a word");
            ensure!(!sentence.contains("panicked"), "{name} panicked: {}", child.said().trim());
            said.push(format!("{name}: {}", if sentence.is_empty() { "ran" } else { &sentence }));
            child.kill();
        }
        Ok(said.join("; "))
    }
}

/// Starts a second one of a server.
pub(super) fn begin(troupe: &mut Troupe, who: Who, apart: bool, ms: u64) -> Result<(), Failure> {
    let Some(seat) = troupe.seats.get(&who) else { return Ok(()) };
    let life = seat.lives;
    let folder = troupe.folder().display().to_string();
    let socket = format!("--unix={folder}/twin-{who}.sock");
    let mut arguments: Vec<String> = seat.arguments.clone();
    // A socket of its own, so that it gets further than to that. It is to lead, not to wait.
    arguments.retain(|word| !word.starts_with("--unix=") && word != "--standby");
    arguments.push(socket);
    // The pool may be lost before it gets there: it makes the next one then.
    if who.is_control() {
        add_restores(&mut arguments, &folder);
    }
    let space = apart.then_some(Space::Net);
    let program = if who.is_control() { "landfall-control" } else { "landfall-broker" };
    let child = start(troupe, &format!("second-{who}"), program, arguments, space)?;
    let children = vec![(format!("the second {who}"), child)];
    troupe.acts.later(ms, Undo::Extra(Extra { children, of: Some((who, life)), never: false }));
    Ok(())
}

/// Starts another broker of the pool on a broker's directory, and another system on all of them.
pub(super) fn begin_on_data(troupe: &mut Troupe, broker: u8, ms: u64) -> Result<(), Failure> {
    let folder = troupe.folder().display().to_string();
    let life = troupe.seats.get(&Who::Broker(broker)).map_or(0, |seat| seat.lives);
    let mut other = story::broker_arguments(&folder, 7, false);
    other.push(format!("--data={folder}/{DISKS}/broker-{broker}"));
    let mut control = story::control_arguments(&folder, "twin", "coherent");
    control.retain(|word| !word.starts_with("--pool="));
    control.push(format!("--pool={folder}/twin-pool"));
    add_restores(&mut control, &folder);
    let children = vec![
        (
            format!("broker 7 on the directory of broker {broker}"),
            start(troupe, "second-data", "landfall-broker", other, None)?,
        ),
        (
            "a second system on all directories".to_owned(),
            start(troupe, "second-system", "landfall-control", control, None)?,
        ),
    ];
    let of = Some((Who::Broker(broker), life));
    troupe.acts.later(ms, Undo::Extra(Extra { children, of, never: false }));
    Ok(())
}

/// Names all data directories to a control that does not know them.
pub(super) fn add_restores(arguments: &mut Vec<String>, folder: &str) {
    for name in RESTORES {
        let word = format!("--restore={folder}/{DISKS}/{name}");
        if !arguments.contains(&word) {
            arguments.push(word);
        }
    }
}

/// Starts a client that breaks the rules.
pub(super) fn begin_hostile(troupe: &mut Troupe, attack: Attack, ms: u64) -> Result<(), Failure> {
    let control = troupe.client().address().to_owned();
    let pool = troupe.folder().join("pool");
    let notes = troupe.notes().join(format!("0-hostile-{attack}.json"));
    let arguments = vec![
        "attack".to_owned(),
        format!("--control={control}"),
        format!("--topic={}", story::TOPICS[0]),
        format!("--attack={attack}"),
        format!("--pool={}", pool.display()),
        format!("--notes={}", notes.display()),
        format!("--ms={ms}"),
    ];
    let name = format!("hostile-{attack}");
    let child = start(troupe, &name, "landfall-sweep-client", arguments, None)?;
    let children = vec![(name, child)];
    troupe.acts.later(ms, Undo::Extra(Extra { children, of: None, never: false }));
    Ok(())
}

fn start(
    troupe: &Troupe,
    name: &str,
    program: &str,
    mut arguments: Vec<String>,
    space: Option<Space>,
) -> Result<Child, Failure> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only the number matters.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    if program != "landfall-sweep-client" {
        arguments.push(format!("--parent={}", std::process::id()));
    }
    let mut command: Command = seat::command(&troupe.programs().join(program), space);
    command.args(&arguments);
    seat::environment(&mut command, troupe.folder(), OTHERS);
    let stem: PathBuf = troupe.notes().join(format!("{name}.{number}.x"));
    Child::start(command, &stem, None)
        .map_err(|error| Failure::new(format!("start {program} as {name}: {error}")))
}
