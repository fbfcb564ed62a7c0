//! A disk that takes long to answer is waited for before a new pool is served.

mod fake;

use std::fs::{self, File};

use fake::homes::{Two, entry, lead, name, said};
use fake::{Memory, eventually};
use landfall_layout::topic::Order;
use landfall_replica::ask;
use landfall_replica::names::TOPIC_FILE;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// What the second directory says comes only when who asks with the short deadline of a running
/// system has been told that it does not answer.
#[test]
fn a_start_waits_for_a_disk_that_a_running_system_leaves_aside() {
    let two = Two::new("slow");
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        name(data, number);
        said(&entry(Order::Strong, 3)).write(&topic).unwrap();
    }
    let (disk, file) = (two.data()[1].clone(), two.topics()[1].join(TOPIC_FILE));
    let whole = file.with_extension("whole");
    fs::rename(&file, &whole).unwrap();
    mkfifo(&file, Mode::S_IRWXU).unwrap();
    let spins_up = std::thread::spawn(move || {
        eventually("the disk hangs", || ask(&disk, || ()).err());
        let hung = file.with_extension("hung");
        fs::rename(&file, &hung).unwrap();
        fs::rename(&whole, &file).unwrap();
        // Whoever reads there reads an end.
        File::options().write(true).open(&hung).unwrap();
        fs::remove_file(&hung).unwrap();
    });
    let control = lead(&Memory::new(), &two.data());
    spins_up.join().unwrap();
    let control = control.map_err(|error| panic!("{error}")).unwrap();
    control.stop();
}
