//! The kernel's text files.

use landfall_pool::map::Backing;

use super::facts::Cpu;

/// A mounted file system in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where.
    pub path: String,
    /// What files in it are.
    pub backing: Backing,
    /// Its `huge=` option.
    pub huge: String,
}

/// `/dev/shm` and the mounts of hugetlbfs in `/proc/mounts`. A later mount hides an earlier one.
pub fn mounts(text: &str) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (Some(path), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        found.retain(|mount| mount.path != path);
        let backing = match kind {
            "tmpfs" if path == "/dev/shm" => Backing::Shmem,
            "hugetlbfs" => Backing::HugePages,
            _ => continue,
        };
        let huge = options.split(',').find_map(|option| option.strip_prefix("huge="));
        let huge = huge.unwrap_or_default().to_owned();
        found.push(Mount { path: path.to_owned(), backing, huge });
    }
    found
}

/// The word in brackets: `always [madvise] never` is `madvise`.
pub fn chosen(text: &str) -> Option<String> {
    let (_, from) = text.split_once('[')?;
    let (word, _) = from.split_once(']')?;
    Some(word.to_owned())
}

/// A list of ranges: `0-2,5`. What is not a number is left out.
pub fn ranges(text: &str) -> Vec<usize> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            // No machine has more cores; a longer range is not a list of cores.
            all.extend((first..=last).take(1 << 16));
        }
    }
    all
}

/// The first processor in `/proc/cpuinfo`.
pub fn cpu(text: &str) -> Cpu {
    let field = |wanted: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| name.trim() == wanted);
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let features = field("flags").split_whitespace().map(str::to_owned).collect();
    Cpu { vendor: field("vendor_id"), model: field("model name"), features, can_flush: false }
}

/// The files that hold the memory bounds of the control groups in `/proc/self/cgroup`, from the
/// innermost group outwards.
pub fn memory_bounds(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut inside = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{inside}/{file}"));
            match inside.rsplit_once('/') {
                Some((outer, _)) => inside = outer,
                None => break,
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_memory_are_found_and_later_ones_hide_earlier_ones() {
        let text = "proc /proc proc rw 0 0\n\
                    tmpfs /dev/shm tmpfs rw,size=1k 0 0\n\
                    tmpfs /run tmpfs rw 0 0\n\
                    hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n\
                    tmpfs /dev/shm tmpfs rw,huge=advise,size=2k 0 0\n\
                    broken\n";
        let expected = [
            Mount {
                path: "/dev/hugepages".into(),
                backing: Backing::HugePages,
                huge: String::new(),
            },
            Mount { path: "/dev/shm".into(), backing: Backing::Shmem, huge: "advise".into() },
        ];
        assert_eq!(mounts(text), expected);
    }

    #[test]
    fn a_setting_is_the_word_in_brackets() {
        assert_eq!(chosen("always within_size advise [never] deny").as_deref(), Some("never"));
        assert_eq!(chosen("never"), None);
        assert_eq!(chosen("[never"), None);
    }

    #[test]
    fn lists_of_cores_are_read_and_anything_else_is_none() {
        assert_eq!(ranges("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(ranges("(null)\n"), [0; 0]);
        assert_eq!(ranges(""), [0; 0]);
        assert_eq!(ranges("0-18446744073709551615").len(), 1 << 16);
    }

    #[test]
    fn the_first_processor_speaks_for_all() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon: 9\n\
                    flags\t\t: fpu clwb\nprocessor\t: 1\nvendor_id\t: other\n";
        let found = cpu(text);
        assert_eq!((found.vendor.as_str(), found.model.as_str()), ("GenuineIntel", "Xeon: 9"));
        assert!(found.features.contains("clwb") && found.features.len() == 2);
        assert!(cpu("").features.is_empty());
    }

    #[test]
    fn both_versions_of_control_groups_are_looked_at_outwards() {
        assert_eq!(
            memory_bounds("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            memory_bounds("3:cpu:/x\n2:hugetlb,memory:/x\n"),
            [
                "/sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(memory_bounds("nothing"), [""; 0]);
    }
}
