//! Where the sockets of a pool's processes lie on this host: a directory for each pool, which only
//! its user may enter.
//!
//! An abstract name belongs to whoever takes it first, any user of the host. A path in a directory
//! of one user belongs to that user, and is the same one in every network namespace.
//!
//! `BASE/UUID/` is made by the first process of the pool and removed by the last one. Each holds a
//! shared lock (flock(2)) on it; where nobody does, all were killed, and whoever comes next removes
//! what they left.

use std::fs::{self, DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{getegid, geteuid};

use crate::pool::Pool;

/// Longest path of a socket in bytes: `sun_path` of unix(7) without its zero.
pub const PATH_BYTES_MAX: usize = 107;

/// Rights of the base: all may pass through it to a pool's own directory, nobody may list it.
const BASE_MODE: u32 = 0o711;
/// Rights of a pool's directory for the user's group, where umask(2) leaves them.
const MODE: u32 = 0o770;

/// The directory of one pool. Dropped last of all that lie in it.
#[derive(Debug)]
pub struct Sockets {
    path: PathBuf,
    /// Holds the lock.
    directory: File,
}

/// Where the directories of all pools are unless somebody says another place: `/run/landfall` for
/// root; for others `$XDG_RUNTIME_DIR/landfall`, or `/tmp/landfall-UID` where that is not set.
pub fn usual_base() -> PathBuf {
    let user = geteuid();
    if user.is_root() {
        return "/run/landfall".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => Path::new(&directory).join("landfall"),
        None => format!("/tmp/landfall-{user}").into(),
    }
}

impl Sockets {
    /// The directory `uuid` in `base`, made if it is not there, and removed with the last of those
    /// who have opened it.
    ///
    /// What others may write is refused, and a path too long for a socket.
    pub fn open(base: &Path, uuid: &str) -> io::Result<Self> {
        make(base, BASE_MODE)?;
        check(base, &fs::metadata(base)?, 0o022)?;
        sweep(base);
        let path = base.join(uuid);
        loop {
            make(&path, MODE)?;
            let directory = match File::open(&path) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(named(&path, error)),
            };
            directory.lock_shared().map_err(|error| named(&path, error))?;
            if is_at(&directory, &path) {
                check(&path, &directory.metadata()?, 0o007)?;
                return Ok(Self { path, directory });
            }
            // The last one of those before removed it meanwhile.
        }
    }

    /// The path of the socket `name`.
    pub fn path(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let bytes = path.as_os_str().len();
        if bytes > PATH_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} has {bytes} bytes, and a socket's path {PATH_BYTES_MAX} at most: say a \
                     shorter directory with --sockets",
                    path.display()
                ),
            ));
        }
        Ok(path)
    }
}

impl Pool {
    /// The sockets of this pool's processes, in the usual directory unless
    /// [`Self::keep_sockets_in`] said another.
    pub fn sockets(&self) -> io::Result<Arc<Sockets>> {
        match self.sockets.get() {
            Some(sockets) => Ok(Arc::clone(sockets)),
            None => self.keep_sockets_in(&usual_base()),
        }
    }

    /// Has the sockets of this pool's processes in a directory of `base`: all of a host have to
    /// say the same one, before they use any. What others may write there is refused.
    pub fn keep_sockets_in(&self, base: &Path) -> io::Result<Arc<Sockets>> {
        let sockets = Arc::new(Sockets::open(base, &self.uuid_text())?);
        Ok(Arc::clone(self.sockets.get_or_init(|| sockets)))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Whoever opens it at this moment waits for the lock, and then makes it anew.
        if self.directory.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Binds a datagram socket at `path`. One that a dead process left is replaced, as one whose other
/// end answers is not: [`io::ErrorKind::AddrInUse`].
pub(crate) fn bind_datagram(path: &Path) -> io::Result<UnixDatagram> {
    match UnixDatagram::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let probe = UnixDatagram::unbound()?;
            match probe.connect(path) {
                Err(dead) if dead.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                    UnixDatagram::bind(path)
                }
                _ => Err(error),
            }
        }
        other => other,
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        // All may pass through a base, also where the umask is one for private files.
        Ok(()) if mode == BASE_MODE => {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(|e| named(path, e))
        }
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(named(path, error)),
    }
}

/// Refuses a directory that is somebody else's, or in which others have one of these rights.
fn check(path: &Path, found: &Metadata, others: u32) -> io::Result<()> {
    let (user, owner, mode) = (geteuid().as_raw(), found.uid(), found.mode() & 0o7777);
    let is_ours = owner == user || owner == 0;
    let shares = found.gid() == getegid().as_raw() && mode & 0o070 == 0o070;
    let refused = if !found.is_dir() {
        "is no directory".to_owned()
    } else if !is_ours && !shares {
        format!("belongs to user {owner}, and this process is user {user}")
    } else if mode & others != 0 {
        format!("has mode {mode:04o}: others could put sockets of theirs there")
    } else {
        return Ok(());
    };
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} {refused}; say another directory with --sockets", path.display()),
    ))
}

fn is_at(directory: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    match (directory.metadata(), fs::symlink_metadata(path)) {
        (Ok(opened), Ok(there)) => identity(opened) == identity(there),
        _ => false,
    }
}

/// Removes what pools left all of whose processes were killed. What cannot be removed is no harm.
fn sweep(base: &Path) {
    let Ok(found) = fs::read_dir(base) else { return };
    for path in found.flatten().map(|entry| entry.path()).filter(|path| is_a_pools(path)) {
        let Ok(directory) = File::open(&path) else { continue };
        match directory.try_lock() {
            Ok(()) if is_at(&directory, &path) => {
                let _ = fs::remove_dir_all(&path);
            }
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

/// Whether the name is one that [`Sockets::open`] gives: nothing else is removed.
fn is_a_pools(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "00112233445566778899aabbccddeeff";

    struct Base(PathBuf);

    impl Base {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("landfall-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn mode(&self, name: &str) -> u32 {
            fs::metadata(self.0.join(name)).unwrap().mode() & 0o777
        }
    }

    impl Drop for Base {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_last_one_removes_it() {
        let base = Base::new("last");
        let one = Sockets::open(&base.0, UUID).unwrap();
        let two = Sockets::open(&base.0, UUID).unwrap();
        let path = one.path("bell").unwrap();
        let bell = bind_datagram(&path).unwrap();
        assert_eq!((base.mode(""), base.mode(UUID) & 0o007), (0o711, 0));
        drop(one);
        assert!(path.exists());
        drop((bell, two));
        assert!(!base.0.join(UUID).exists());
    }

    #[test]
    fn what_was_killed_is_swept_away_and_nothing_else_is() {
        let base = Base::new("swept");
        let lives = Sockets::open(&base.0, UUID).unwrap();
        let dead = base.0.join("ff".repeat(16));
        let foreign = base.0.join("mine");
        [&dead, &foreign].iter().for_each(|path| fs::create_dir(path).unwrap());
        drop(UnixDatagram::bind(dead.join("bell")).unwrap());
        let other = Sockets::open(&base.0, &"aa".repeat(16)).unwrap();
        assert!(!dead.exists() && foreign.exists() && base.0.join(UUID).exists());
        drop((lives, other));
    }

    #[test]
    fn a_live_socket_is_kept_and_a_dead_one_replaced() {
        let base = Base::new("live");
        let sockets = Sockets::open(&base.0, UUID).unwrap();
        let path = sockets.path("bell").unwrap();
        let lives = bind_datagram(&path).unwrap();
        assert_eq!(bind_datagram(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(lives);
        bind_datagram(&path).unwrap();
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let base = Base::new("others");
        drop(Sockets::open(&base.0, UUID).unwrap());
        fs::set_permissions(&base.0, PermissionsExt::from_mode(0o1777)).unwrap();
        let why = Sockets::open(&base.0, UUID).unwrap_err().to_string();
        assert!(why.contains("mode 1777") && why.contains("--sockets"), "{why}");
        fs::set_permissions(&base.0, PermissionsExt::from_mode(0o711)).unwrap();
        fs::create_dir(base.0.join(UUID)).unwrap();
        fs::set_permissions(base.0.join(UUID), PermissionsExt::from_mode(0o777)).unwrap();
        // Nobody holds it, so it goes, and another takes its place.
        let sockets = Sockets::open(&base.0, UUID).unwrap();
        assert_eq!(base.mode(UUID) & 0o007, 0);
        fs::set_permissions(base.0.join(UUID), PermissionsExt::from_mode(0o777)).unwrap();
        let why = Sockets::open(&base.0, UUID).unwrap_err().to_string();
        assert!(why.contains("mode 0777"), "{why}");
        drop(sockets);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_the_numbers() {
        let base = Base::new(&"x".repeat(80));
        let sockets = Sockets::open(&base.0, UUID).unwrap();
        let why = sockets.path("bell").unwrap_err().to_string();
        assert!(why.contains("107 at most") && why.contains("--sockets"), "{why}");
    }
}
