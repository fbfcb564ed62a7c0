//! What a system makes belongs to its user, and what other users of the host may do with it.
//!
//! Some of it needs a second user, which only root can be.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{System, landfall, text, until};

/// The user `nobody`, and its group.
const NOBODY: u32 = 65534;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // Pools lie on memory.
        let path = Path::new("/dev/shm").join(format!("landfall-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A system all of whose files and sockets are in a folder, with durable messages in it.
fn system_in(folder: &Folder, more: &[&str]) -> System {
    let places = ["pool", "data", "control.sock", "sockets"].map(|name| folder.path(name));
    let [pool, data, control, sockets] = &places;
    let mut all = vec!["--pool", pool, "--data", data, "--unix", control, "--sockets", sockets];
    all.extend(more);
    let system = System::start_with(2, &all);
    system.ok(&["topic", "create", "kept", "--replicas", "2"], b"");
    system.ok(&["publish", "kept", "--ack", "durable"], b"one\ntwo\n");
    system
}

/// Everything below a folder, with its kind and its rights.
fn rights(folder: &Path) -> Vec<(PathBuf, bool, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, metadata) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        found.push((path.clone(), metadata.is_dir(), metadata.mode() & 0o777));
        if metadata.is_dir() {
            found.extend(rights(&path));
        }
    }
    found
}

/// That others have none of these rights, but for passing through the directory of all pools.
fn assert_rights(folder: &Folder, others: u32, for_files: u32, for_directories: u32) {
    let found = rights(&folder.0);
    for file in ["pool", "control.sock", "memory-0", "broker-1", "keeper-0", "topic.json"] {
        assert!(found.iter().any(|(path, ..)| path.ends_with(file)), "no {file}: {found:?}");
    }
    for (path, is_directory, mode) in found.iter().filter(|(path, ..)| !path.ends_with("sockets")) {
        let least = if *is_directory { for_directories } else { for_files };
        assert_eq!((mode & others, mode & least), (0, least), "{}: {mode:o}", path.display());
    }
    let base = fs::metadata(folder.0.join("sockets")).unwrap().mode();
    assert_eq!(base & 0o777, 0o711);
}

fn as_nobody(mut command: Command) -> Command {
    command.uid(NOBODY).gid(NOBODY);
    command
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn what_a_system_makes_is_its_users_alone() {
    let folder = Folder::new("private");
    let system = system_in(&folder, &[]);
    assert_rights(&folder, 0o077, 0o600, 0o700);
    if is_root() {
        for (path, ..) in rights(&folder.0).iter().filter(|(_, is_directory, _)| !is_directory) {
            let mut reads = Command::new("cat");
            reads.arg(path).stderr(Stdio::null()).stdout(Stdio::null());
            assert!(!as_nobody(reads).status().unwrap().success(), "{}", path.display());
        }
        let memory = ["subscribe", "kept", "--count", "1", "--transport", "memory"];
        let output = as_nobody(system.command(&memory)).output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("Permission denied"), "{said}");
    }
    let (status, said) = system.stop();
    assert_eq!(status, Some(0), "{said}");
    let left = rights(&folder.0.join("sockets"));
    assert!(left.is_empty(), "sockets are left: {left:?}");
}

#[test]
fn a_group_may_have_it_too() {
    let folder = Folder::new("group");
    let group = nix::unistd::getegid().to_string();
    let system = system_in(&folder, &["--group", &group]);
    assert_rights(&folder, 0o007, 0o660, 0o770);
    assert_eq!(system.stop().0, Some(0));
    let wrong = landfall().args(["up", "--group", "no-such-group"]).output().unwrap();
    let said = text(&wrong.stderr);
    assert!(wrong.status.code() == Some(2) && said.contains("there is no group"), "{said}");
}

#[test]
fn a_pool_that_another_user_has_put_there_is_not_taken_up() {
    if !is_root() {
        // A file can be given to nobody else.
        return;
    }
    let folder = Folder::new("theirs");
    let pool = folder.path("pool");
    fs::write(&pool, "").unwrap();
    std::os::unix::fs::chown(&pool, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut up = landfall();
    up.args(["up", "--control", "127.0.0.1:0", "--pool-bytes", "256M", "--pool", &pool]);
    let output = up.output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("belongs to user 65534"), "{said}");
}

#[test]
fn sockets_that_others_could_put_there_are_refused_with_the_remedy() {
    let folder = Folder::new("open");
    fs::create_dir(folder.path("sockets")).unwrap();
    fs::set_permissions(folder.path("sockets"), PermissionsExt::from_mode(0o1777)).unwrap();
    let mut up = landfall();
    up.args(["up", "--control", "127.0.0.1:0", "--pool-bytes", "256M"]);
    let output = up.args(["--sockets", &folder.path("sockets")]).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("has mode 1777"), "{said}");
    assert!(said.contains("say another directory with --sockets"), "{said}");
}

#[test]
fn who_took_a_name_that_anybody_may_take_is_not_believed() {
    if !is_root() {
        // There is no second user to take it: `owner::judge` is tested with numbers instead.
        return;
    }
    let folder = Folder::new("false");
    let theirs = folder.0.join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let name = format!("@landfall-false-{}", std::process::id());
    let control = Path::new(env!("CARGO_BIN_EXE_landfall")).with_file_name("landfall-control");
    let copy = folder.0.join("landfall-control");
    // The build's own folder may be closed to other users.
    fs::copy(control, &copy).unwrap();
    let mut command = Command::new(copy);
    command.arg("--pool").arg(theirs.join("pool")).arg("--sockets").arg(theirs.join("sockets"));
    command.args(["--pool-bytes", "128M", "--listen", "127.0.0.1:0", "--unix", &name]);
    let mut theirs = as_nobody(command).stdout(Stdio::null()).spawn().unwrap();
    let ask = |mut command: Command| {
        command.args(["topic", "ls", "--control", &format!("unix:{name}"), "--wait", "0s"]);
        text(&command.output().unwrap().stderr)
    };
    let mut said = String::new();
    until("the false control is asked", || {
        said = ask(landfall());
        said.contains("at its other end")
    });
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    assert!(said.contains("user 65534") && said.contains("anybody may take"), "{said}");
}
