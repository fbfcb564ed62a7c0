//! Whether data directories answer, before this process goes where it would wait for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_pool::stderr;
use landfall_replica::ask::{self, Asked, PATIENT, SILENT, Silent};
use landfall_replica::names::{ages, topic_directory};
use landfall_replica::{FileError, TopicFile};

/// Those of the directories that do not answer: what each says of its topics is read, of all at
/// once. One that answers with an error answers.
pub fn silent(data: &[PathBuf]) -> Vec<Silent> {
    let asked = ask_all(data, SILENT);
    asked.into_iter().filter_map(|asked| asked.wait().err()).collect()
}

/// The same before a start that cannot do without them, which waits longer and says for which.
pub fn silent_at_start(data: &[PathBuf]) -> Vec<Silent> {
    let asked = ask_all(data, PATIENT);
    asked.into_iter().filter_map(|asked| asked.wait_and_tell(say_waiting).err()).collect()
}

/// Says that a start waits for a directory from which nothing came for so long.
pub fn say_waiting(data: &Path, still: Duration) {
    stderr::note(format_args!(
        "control: waiting: {} has not answered for {} s; control has to read it before it serves, \
         and waits until nothing came from there for {} s",
        data.display(),
        still.as_secs(),
        PATIENT.as_secs()
    ));
}

fn ask_all(data: &[PathBuf], bound: Duration) -> Vec<Asked<Result<(), FileError>>> {
    let look = |data: &PathBuf| {
        let path = data.clone();
        ask::begin_within(data, bound, move || {
            for (name, created_ns) in ages(&path)? {
                let _ = TopicFile::read(&topic_directory(&path, &name, created_ns));
                ask::moved();
            }
            Ok(())
        })
    };
    data.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_directory_whose_files_hang_is_named_and_one_that_is_not_there_is_not() {
        let path = |which| format!("landfall-answers-{which}-{}", std::process::id());
        let [well, hangs] = ["well", "hangs"].map(|which| std::env::temp_dir().join(path(which)));
        let topic = topic_directory(&hangs, "t", 70);
        fs::create_dir_all(&topic).unwrap();
        // Nobody ever writes into it.
        mkfifo(&topic.join("topic.json"), Mode::S_IRWXU).unwrap();
        fs::create_dir_all(topic_directory(&well, "t", 70)).unwrap();
        let all = [hangs.clone(), well.clone(), well.join("not there")];
        assert_eq!(silent(&all), [Silent::new(hangs.clone())]);
        fs::remove_dir_all(&well).unwrap();
        fs::remove_dir_all(&hangs).unwrap();
    }
}
