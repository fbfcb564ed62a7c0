//! Whom the files of a server belong to, and which users it and its clients take for theirs.
//!
//! Files and sockets belong to one user, or also to a group. Where a name is one that anybody may
//! take, as abstract names are and names in a directory like `/tmp`, each side asks the kernel for
//! the user of the other (`SO_PEERCRED`, unix(7)).

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, geteuid, setegid};

/// The group that may read and write what a server makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedWith(Gid);

impl std::str::FromStr for SharedWith {
    type Err = String;

    /// A group's name, or its number.
    fn from_str(word: &str) -> Result<Self, String> {
        match word.parse() {
            Ok(number) => Ok(Self(Gid::from_raw(number))),
            Err(_) => match Group::from_name(word) {
                Ok(Some(group)) => Ok(Self(group.gid)),
                Ok(None) => Err(format!("there is no group {word:?}")),
                Err(error) => Err(format!("look for the group {word:?}: {error}")),
            },
        }
    }
}

impl fmt::Display for SharedWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What this process makes from now on, files, directories and sockets, belongs to its user alone,
/// or to a group as well: modes 0600 and 0700, or 0660 and 0770.
pub fn own_what_is_made(group: Option<SharedWith>) -> Result<(), String> {
    let Some(SharedWith(gid)) = group else {
        umask(Mode::from_bits_truncate(0o077));
        return Ok(());
    };
    setegid(gid).map_err(|error| {
        format!("make files of group {gid}: {error}; be a member of that group, or start as root")
    })?;
    umask(Mode::from_bits_truncate(0o007));
    Ok(())
}

/// Refuses a server whose name anybody may have taken, unless it is root's or this user's.
/// `address` is a path, or `@` and an abstract name.
pub fn check_server(socket: &impl AsFd, address: &str) -> io::Result<()> {
    if !address.starts_with('@') && is_closed(Path::new(address))? {
        return Ok(());
    }
    check(socket, address)
}

/// Refuses a client of an abstract name unless it is root's or this user's. A client of a path has
/// the right to write to the socket's file.
pub fn check_client(socket: &impl AsFd, address: &str) -> io::Result<()> {
    if address.starts_with('@') { check(socket, address) } else { Ok(()) }
}

/// Whether only its owner and group can make files in the directory of a path.
fn is_closed(path: &Path) -> io::Result<bool> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(fs::metadata(directory)?.mode() & 0o002 == 0)
}

fn check(socket: &impl AsFd, address: &str) -> io::Result<()> {
    let other = getsockopt(socket, PeerCredentials)?.uid();
    judge(other, geteuid().as_raw(), address)
}

/// Whether user `mine` may deal with user `other` where anybody can be.
fn judge(other: u32, mine: u32, address: &str) -> io::Result<()> {
    if other == 0 || other == mine {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{address} is a name that anybody may take, and user {other} is at its other end, \
             where only root and user {mine} are trusted; use a path in a directory that others \
             may not write"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_root_and_oneself_are_trusted_where_anybody_can_be() {
        assert!(judge(0, 1000, "@a").is_ok() && judge(1000, 1000, "@a").is_ok());
        let why = judge(1001, 1000, "@a").unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::PermissionDenied);
        assert!(why.to_string().starts_with("@a is a name that anybody may take, and user 1001"));
        assert!(judge(1000, 0, "@a").is_err());
    }

    #[test]
    fn a_directory_that_all_may_write_proves_nothing() {
        let (here, _there) = UnixStream::pair().unwrap();
        // The other end is this process itself, whoever runs it.
        check_server(&here, "@anything").unwrap();
        check_client(&here, "/tmp/anything").unwrap();
        let open = std::env::temp_dir().join("landfall-nothing");
        let closed = Path::new("/proc/self/status");
        let is_sticky = fs::metadata("/tmp").unwrap().mode() & 0o002 != 0;
        assert_eq!(is_closed(&Path::new("/tmp").join("x")).unwrap(), !is_sticky);
        assert!(is_closed(closed).unwrap());
        check_server(&here, open.to_str().unwrap()).unwrap();
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!("0".parse(), Ok(SharedWith(Gid::from_raw(0))));
        assert_eq!("root".parse(), Ok(SharedWith(Gid::from_raw(0))));
        let why = "no-such-group".parse::<SharedWith>().unwrap_err();
        assert_eq!(why, "there is no group \"no-such-group\"");
    }
}
