//! Every target over its kept corpus, and over a bounded number of seeded mutations of it.

use std::path::Path;

use landfall_layout_fuzz::TARGETS;

/// Mutations of each corpus file; together a second or two.
const MUTATIONS: u64 = 4_000;

/// xorshift64*: the same mutations on every machine, so that a failure comes back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Values at which decoders change their minds.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                for (to, from) in bytes[at..].iter_mut().zip(&edge[..width]) {
                    *to = *from;
                }
            }
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.next() as u8),
            _ => bytes.extend_from_within(at..),
        }
        bytes.truncate(4096);
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|file| file.expect("a directory that can be read").path())
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a corpus file that can be read");
            (path.file_name().expect("a file").to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    files
}

fn run(target: &str, function: fn(&[u8]) -> bool) {
    let files = corpus(target);
    assert!(files.len() >= 5, "the corpus of {target} has only {} files", files.len());
    let nothing: Vec<_> =
        files.iter().filter(|(_, bytes)| !function(bytes)).map(|(name, _)| name).collect();
    // A version that is raised leaves a corpus behind that decoders refuse at their first look. A
    // quarter is to be something; the rest is for the refusals.
    assert!(
        4 * nothing.len() <= 3 * files.len(),
        "{} of the {} files of {target} are nothing to its decoders: {nothing:?}",
        nothing.len(),
        files.len()
    );
    for (number, (name, bytes)) in files.iter().enumerate() {
        for length in 0..bytes.len() {
            function(&bytes[..length]);
        }
        let mut random = Random(0x9e37_79b9 + number as u64);
        for round in 0..MUTATIONS {
            let mut mutant = bytes.clone();
            mutate(&mut mutant, &mut random);
            let shown = mutant.clone();
            if std::panic::catch_unwind(|| function(&mutant)).is_err() {
                panic!("{target}: mutation {round} of {name} failed; its bytes: {shown:02x?}");
            }
        }
    }
}

#[test]
fn every_target_holds_over_its_corpus_and_mutations_of_it() {
    for (target, function) in TARGETS {
        run(target, function);
    }
}
