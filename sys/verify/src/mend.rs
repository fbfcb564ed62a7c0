//! What to do about findings: the sentences behind them.

/// Control does it by itself.
pub const CONTROL_DELETES: &str = "control deletes the topic when it starts";
/// Control does it by itself.
pub const CONTROL_FREES: &str = "control takes it back, when it starts at the latest";
/// Control does it by itself.
pub const CONTROL_READS_LOG: &str = "control finds it again from the log when it starts";
/// Nothing depends on it.
pub const CONTROL_IGNORES: &str = "nobody reads it";
/// The offline tool can.
pub const RECOVER: &str = "stop every process of the pool and run landfall recover on it";
/// Nothing can, but evidence should be kept.
pub const COPY_POOL: &str = "copy the pool before anything is started on it, and take the topic \
                             from its replicas if it has some";
/// Nobody can tell what it said.
pub const NEW_POOL: &str = "stop everything, keep a copy of the pool, and start control on a new \
                            one with --restore, from the replicas";
/// The tables are of an earlier time.
pub const NOT_THE_LATEST: &str = "the tables that are followed are not the latest: stop \
                                  everything, copy the pool, and go on from the replicas with a \
                                  new pool and --restore";
/// A topic is not what it should be.
pub const DELETE_ONE: &str = "read out what is needed and delete the topic";
/// The bytes of a batch.
pub const READ_REPLICA: &str = "read it from a replica if the topic has some; nobody can read it \
                                from here";
/// Memory that failed.
pub const NEVER_AGAIN: &str = "nobody is given it again, and batches in it are read from replicas; \
                               when the memory is mended, move the topics to a new pool";
/// The broker does it by itself.
pub const BROKER_RESUMES: &str = "the broker finds it again when it starts";
/// A replica that stopped.
pub const RESTART_BROKER: &str = "see landfall errors; a full disk needs room, a failed one a \
                                  restart of its broker";
/// Replica files that are damaged or gone.
pub const BROKER_FILLS: &str = "its broker writes it again when it starts, from the pool or from \
                                other brokers' directories that it can read (--read-data), as far \
                                as they have it; keep the files until then";
/// Replicas that contradict each other, or themselves.
pub const CONTRADICT: &str = "files of another time or another system may be among these: move \
                              those away, and keep all of them as they are until then";
/// What one copy lacks without a word.
pub const LEFT_OUT: &str = "stop the broker of the copy that left them out, move that directory \
                            away, let the broker read the others' directories (--read-data), and \
                            start it again: it copies what they have";
/// What all replicas lack.
pub const NOWHERE: &str = "only the pool as long as it is there, or a backup of the files, can \
                           have them: keep both";
/// What changed before anybody copied it.
pub const SPOILT: &str = "nobody has it: its publisher was told that it is lost, and can publish \
                          its messages anew";
/// Files that lie where they do not belong.
pub const STRANGE: &str = "move it away, or to where it belongs, while its broker is stopped";
/// Neither the topic's file nor its copy can be read.
pub const TOPIC_BACK: &str = "put topic.json back from another broker's directory of the topic, \
                              while the broker of this one is stopped";
/// A disk that is not mounted looks like an empty directory.
pub const MOUNT: &str = "mount its disk, or put its data directory beside the others, before a \
                         cold start";
/// The broker does it by itself.
pub const TOPIC_FILE: &str = "its broker writes both again when it starts";
/// What one broker says in the directories of others.
pub const WORD: &str = "name all of the topic's directories at the next cold start (--restore): \
                        what it said is said in the others too. The start removes it, and so may \
                        you: nobody reads it";
/// The broker does it by itself.
pub const BROKER_NAMES: &str = "its broker writes it again when it starts on a pool that is served";
/// A torn end.
pub const RECOVER_FILES: &str = "its broker cuts it off when it starts, and landfall recover does \
                                 too: no record that holds is in it";
/// A header that does not hold, where all of it is known.
pub const HEADER: &str = "its broker writes it again when it starts, and landfall recover does \
                          too: no record is touched";
/// The same, where other files follow: its broker looks at the last one when it starts.
pub const HEADER_BEFORE: &str = "landfall recover writes it again while its broker is stopped: no \
                                 record is touched, and all of them are read as it is";
/// What was cut off.
pub const CUT_OFF: &str = "landfall recover puts it back where its file still ends there; \
                           otherwise it goes with its file or its topic";
/// What is missing in files that nobody keeps any more.
pub const LEFT_OVER: &str = "nothing is lost: the files of that directory may be removed while its \
                             broker is stopped, or stay; they go with their topic";
/// A file that was set aside.
pub const ASIDE: &str = "its broker writes what was in it again; it may be removed, and goes with \
                         its topic, or with its place where bounds are set";
/// What no disk has.
pub const ONLY_MEMORY: &str = "as long as the pool is there it has them; without it they are lost, \
                               and no copy that is here ever reached them";
/// What no disk has, of a pool that was lost.
pub const PAST: &str = "control told of them when it started on the next pool; only files that \
                        were taken away since can have them";
/// What the system refused to read.
pub const UNREAD: &str = "let whoever runs this read it (its rights, its disk), and look again: \
                          nothing says that it is damaged";
/// What a damaged file may have had.
pub const DAMAGED: &str = "some of them may have been acknowledged as durable: put directories of \
                           other copies beside these, or start the brokers on the pool as long as \
                           it is there: they write again what it has";
/// Files that are gone.
pub const GONE: &str = "put the files back that were there, or start their brokers on the pool as \
                        long as it is there: they write again what it has";
/// A disk that does not answer.
pub const HANGS: &str =
    "mend its disk, or the host that has it (dmesg may say more), and look again";
/// Other directories.
pub const LOOK_ELSEWHERE: &str = "look at the directories of all brokers together: one that has a \
                                  broker-N for each";
/// Nobody leads.
pub const START_CONTROL: &str = "start control, which makes its tables whole";
/// Who writes a log.
pub const WRITER_RESUMES: &str = "the log's writer finds it again from its entries when it starts";
