//! Settings: defaults, then a TOML file, then the environment, then flags.

mod keys;

use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use landfall_layout::limits::{
    COPY_MOVE_NS, POOL_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SESSIONS_DEFAULT,
};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Outcome};
use crate::units::{Size, Start, Time};
use crate::words;

/// Prefix of the environment's settings: `LANDFALL__PUBLISH__BATCH_BYTES`.
const ENVIRONMENT: &str = "LANDFALL__";
/// Name of the file that is looked for.
const FILE: &str = "landfall.toml";
const IN_THE_ENVIRONMENT: &str = "environment";
const DEFAULT: &str = "default";

macro_rules! settings {
    ($($(#[$doc:meta])+ $section:ident {
        $($(#[$key_doc:meta])+ $key:ident: $type:ty = $value:expr),+ $(,)?
    })+) => { $(
        $(#[$doc])+
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        pub struct $section { $($(#[$key_doc])+ pub $key: $type),+ }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $value),+ }
            }
        }
    )+ };
}

settings! {
    /// Where control is.
    Control {
        /// Its address; `landfall up` listens there.
        address: String = "http://127.0.0.1:7400".into(),
        /// Longest wait for one that is just being started, or takes over.
        wait: Time = Time(std::time::Duration::from_secs(10)),
    }
    /// How things are printed.
    Output {
        /// Views: table or json.
        format: words::Format = words::Format::Table,
    }
    /// New topics.
    Topic {
        /// Order.
        order: words::Order = words::Order::Total,
        /// Copies, the pool's the first.
        replicas: u8 = 1,
    }
    /// `landfall publish`.
    Publish {
        /// Level to wait for.
        ack: words::Ack = words::Ack::Ordered,
        /// How bytes travel.
        transport: words::Transport = words::Transport::Auto,
        /// How batches get into the pool over verbs.
        grant: words::Grant = words::Grant::Window,
        /// Bytes of a batch, its preamble included.
        batch_bytes: Size = Size(256 << 10),
        /// Longest wait for a batch to fill.
        linger: Time = Time(std::time::Duration::from_millis(1)),
        /// Most bytes queued and unacknowledged.
        memory_bytes: Size = Size(64 << 20),
        /// Longest wait without progress.
        timeout: Time = Time(std::time::Duration::from_secs(10)),
    }
    /// `landfall subscribe`.
    Subscribe {
        /// Where to start.
        from: Start = Start(landfall::Start::Earliest),
        /// How bytes travel.
        transport: words::Transport = words::Transport::Auto,
        /// How bytes come over verbs.
        read: words::Read = words::Read::Pushed,
        /// How messages are printed.
        output: words::Lines = words::Lines::Raw,
    }
    /// `landfall up`.
    Up {
        /// Brokers.
        brokers: usize = 1,
        /// The pool's file; none: anonymous memory.
        pool: Option<PathBuf> = None,
        /// Where brokers keep replicas; none: nowhere.
        data: Option<PathBuf> = None,
        /// A Unix socket for control as well.
        unix: Option<String> = None,
        /// Names by which control is asked.
        host: Option<String> = None,
        /// The group that files and sockets are for as well.
        group: Option<String> = None,
        /// Directory of the processes' sockets.
        sockets: Option<PathBuf> = None,
        /// The address that brokers take clients over RDMA on.
        verbs: Option<String> = None,
        /// Bytes of the pool.
        pool_bytes: Size = Size(POOL_BYTES_DEFAULT),
        /// Bytes of a segment.
        segment_bytes: Size = Size(SEGMENT_BYTES_DEFAULT),
        /// Session lines.
        sessions: u32 = SESSIONS_DEFAULT,
        /// How the processes wait.
        idle: words::Idle = words::Idle::Backoff,
        /// Touch every page of the pool at the start.
        prefault: bool = false,
        /// Take the room of a new pool only as it is used.
        sparse: bool = false,
        /// The most trusting way in which publishers may write over verbs.
        verbs_grant: words::Grant = words::Grant::Window,
        /// How long the keeper of a copy on disk is away before another takes it over.
        copy_move: Time = Time(std::time::Duration::from_nanos(COPY_MOVE_NS)),
        /// The longest wait for one process at its start.
        start_timeout: Time = Time(std::time::Duration::from_secs(300)),
        /// The longest wait for a process at its end.
        stop_timeout: Time = Time(std::time::Duration::from_secs(30)),
    }
    /// `landfall bench`.
    Bench {
        /// Bytes of a message.
        message_bytes: Size = Size(1 << 10),
        /// Bytes of a batch.
        batch_bytes: Size = Size(1 << 20),
        /// Time measured.
        seconds: f64 = 5.0,
        /// Time before.
        warmup: f64 = 1.0,
        /// Publishers.
        publishers: usize = 1,
        /// Brokers of its own system.
        brokers: usize = 1,
        /// Pool of its own system.
        pool_bytes: Size = Size(POOL_BYTES_DEFAULT),
        /// How all processes wait.
        idle: words::Idle = words::Idle::Backoff,
    }
    /// `landfall demo`.
    Demo {
        /// Pool of its system.
        pool_bytes: Size = Size(512 << 20),
        /// Bytes of a file in one message.
        chunk_bytes: Size = Size(32 << 10),
    }
    /// Every setting there is.
    Settings {
        /// Where control is.
        control: Control = Control::default(),
        /// How things are printed.
        output: Output = Output::default(),
        /// New topics.
        topic: Topic = Topic::default(),
        /// `landfall publish`.
        publish: Publish = Publish::default(),
        /// `landfall subscribe`.
        subscribe: Subscribe = Subscribe::default(),
        /// `landfall up`.
        up: Up = Up::default(),
        /// `landfall bench`.
        bench: Bench = Bench::default(),
        /// `landfall demo`.
        demo: Demo = Demo::default(),
    }
}

/// Flags of the command line that stand for settings.
#[derive(Default)]
pub struct Flags(Vec<Flag>);

struct Flag {
    key: &'static str,
    name: &'static str,
    value: Value,
}

impl Flags {
    /// Notes a flag that was given.
    pub fn set<T: Serialize>(&mut self, key: &'static str, name: &'static str, value: Option<T>) {
        if let Some(value) = value.and_then(|value| Value::serialize(value).ok()) {
            self.0.push(Flag { key, name, value });
        }
    }
}

impl Provider for Flag {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("flag {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(self.key, self.value.clone());
        Ok(Map::from([(Profile::Default, nested.into_dict().unwrap_or_default())]))
    }
}

/// A setting with its effective value and where that came from.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shown {
    /// `section.key`.
    pub key: String,
    /// The value as TOML would have it.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: String,
}

/// The settings and where each came from.
pub struct Config {
    /// The effective settings.
    pub settings: Settings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    figment: Figment,
}

impl Config {
    /// Reads everything there is. `file` is what `--config` says.
    pub fn read(file: Option<&Path>, flags: Flags) -> Outcome<Self> {
        let file = find(file, |name| std::env::var_os(name).map(PathBuf::from))?;
        let mut figment = Figment::from(Serialized::defaults(Settings::default()));
        if let Some(path) = &file {
            figment = figment.merge(Toml::file_exact(path));
        }
        figment = figment.merge(Env::prefixed(ENVIRONMENT).split("__"));
        let control = std::env::var("LANDFALL_CONTROL").ok().filter(|text| !text.is_empty());
        if let Some(address) = control {
            figment = figment.merge(Flag {
                key: "control.address",
                name: "LANDFALL_CONTROL",
                value: Value::from(address),
            });
        }
        for flag in flags.0 {
            figment = figment.merge(flag);
        }
        let wrong = |error: figment::Error| {
            Failure::usage("the configuration cannot be used", sentence(error))
                .next("landfall config show --origin")
        };
        let whole: Value = figment.extract().map_err(wrong)?;
        keys::check(&whole, |value, key| origin(&figment, value, key))?;
        let settings = figment.extract().map_err(wrong)?;
        Ok(Self { settings, file, figment })
    }

    /// Whether somebody set this one: a file, the environment or a flag.
    pub fn is_set(&self, key: &str) -> bool {
        let value = self.figment.find_value(key).ok();
        value.is_some_and(|value| origin(&self.figment, &value, key) != DEFAULT)
    }

    /// Every setting, in order of section and key.
    pub fn shown(&self) -> Vec<Shown> {
        keys::known()
            .into_iter()
            .filter_map(|key| {
                let value = self.figment.find_value(&key).ok()?;
                let origin = origin(&self.figment, &value, &key);
                Some(Shown { value: keys::json(&self.settings, &key)?, key, origin })
            })
            .collect()
    }
}

/// The configuration's file: what was named has to be there; else the first of the usual places.
fn find(
    named: Option<&Path>,
    environment: impl Fn(&str) -> Option<PathBuf>,
) -> Outcome<Option<PathBuf>> {
    let by_environment = environment("LANDFALL_CONFIG").filter(|path| !path.as_os_str().is_empty());
    for (path, how) in
        [(named.map(Path::to_owned), "--config"), (by_environment, "LANDFALL_CONFIG")]
    {
        let Some(path) = path else { continue };
        return match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(path)),
            Ok(_) => Err(Failure::usage(
                format!("cannot read the configuration {}", path.display()),
                format!("{how} names it and it is no file"),
            )),
            Err(error) => Err(Failure::usage(
                format!("cannot read the configuration {}", path.display()),
                format!("{how} names it: {error}"),
            )),
        };
    }
    let home = environment("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| environment("HOME").map(|home| home.join(".config")));
    let places = [
        Some(PathBuf::from(FILE)),
        home.map(|home| home.join("landfall").join(FILE)),
        Some(Path::new("/etc/landfall").join(FILE)),
    ];
    Ok(places.into_iter().flatten().find(|path| path.is_file()))
}

/// Where a value came from, in words.
fn origin(figment: &Figment, value: &Value, key: &str) -> String {
    let Some(metadata) = figment.get_metadata(value.tag()) else { return DEFAULT.into() };
    describe(metadata, key)
}

fn describe(metadata: &Metadata, key: &str) -> String {
    if let Some(Source::File(path)) = &metadata.source {
        return format!("file {}", path.display());
    }
    if metadata.name.contains(IN_THE_ENVIRONMENT) {
        let variable = key.to_ascii_uppercase().replace('.', "__");
        return format!("environment {ENVIRONMENT}{variable}");
    }
    match metadata.name.strip_prefix("flag ") {
        Some("LANDFALL_CONTROL") => "environment LANDFALL_CONTROL".into(),
        Some(flag) => format!("flag {flag}"),
        None => DEFAULT.into(),
    }
}

/// The library's error as one sentence that names the setting and where it was set.
fn sentence(error: figment::Error) -> String {
    let key = error.path.join(".");
    let place = error.metadata.as_ref().map(|metadata| describe(metadata, &key));
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    if key.is_empty() {
        format!("{}{place}", error.kind)
    } else {
        format!("{key}{place}: {}", error.kind)
    }
}

#[cfg(test)]
mod tests;
