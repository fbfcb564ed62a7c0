//! What the settings promise: order of the sources, suggestions, origins.

use super::*;

fn known() -> Vec<String> {
    keys::known()
}

fn read(toml: &str, flags: Flags) -> Outcome<Config> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("landfall-{}-{number}.toml", std::process::id()));
    std::fs::write(&path, toml).unwrap();
    let read = Config::read(Some(&path), flags);
    std::fs::remove_file(&path).unwrap();
    read
}

fn refused(toml: &str) -> String {
    match read(toml, Flags::default()) {
        Ok(_) => panic!("{toml} was taken"),
        Err(failure) => {
            assert_eq!(failure.kind, crate::error::Kind::Usage, "{failure}");
            failure.to_string()
        }
    }
}

#[test]
fn the_nearest_setting_is_suggested() {
    let cases = [
        ("publish.batch_size", "publish.batch_bytes"),
        ("publish.lingr", "publish.linger"),
        ("publsh.linger", "publish.linger"),
        ("subscribe.linger", "publish.linger"),
        ("control.adress", "control.address"),
        ("up.broker", "up.brokers"),
        ("bench.second", "bench.seconds"),
    ];
    for (wrong, right) in cases {
        assert_eq!(keys::nearest(wrong, &known()).as_deref(), Some(right), "{wrong}");
    }
    assert_eq!(keys::nearest("zzz.qqq", &known()), None);
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_file_and_the_right_key() {
    let text = refused("[publish]\nbatch_byte = 5\n");
    assert!(text.contains("unknown setting publish.batch_byte (file "), "{text}");
    assert!(text.contains("did you mean publish.batch_bytes?"), "{text}");
    let text = refused("lingr = '1ms'\n");
    assert!(text.contains("unknown setting lingr"), "{text}");
    let text = refused("publish = 5\n");
    assert!(text.contains("publish is a section"), "{text}");
    let text = refused("[publish.linger]\nms = 5\n");
    assert!(text.contains("publish.linger"), "{text}");
}

#[test]
fn a_wrong_value_names_its_setting_and_what_would_do() {
    let text = refused("[publish]\nbatch_bytes = '5 apples'\n");
    assert!(text.contains("publish.batch_bytes (file ") && text.contains("64K"), "{text}");
    let text = refused("[publish]\nlinger = 5\n");
    assert!(text.contains("publish.linger") && text.contains("unit"), "{text}");
    let text = refused("[publish]\nack = 'sure'\n");
    assert!(text.contains("publish.ack") && text.contains("ordered"), "{text}");
    let text = refused("[publish\n");
    assert!(text.contains("cannot be used"), "{text}");
}

#[test]
fn a_flag_beats_the_file_and_the_origin_says_so() {
    let mut flags = Flags::default();
    flags.set("publish.linger", "--linger", Some(Time(std::time::Duration::from_millis(7))));
    flags.set("publish.ack", "--ack", None::<words::Ack>);
    let toml = "[publish]\nlinger = '2ms'\nbatch_bytes = '64K'\n[up]\nbrokers = 3\n";
    let config = read(toml, flags).unwrap();
    assert_eq!(config.settings.publish.linger.to_string(), "7ms");
    assert_eq!(config.settings.publish.batch_bytes, Size(64 << 10));
    assert_eq!(config.settings.up.brokers, 3);
    let shown = config.shown();
    let of = |key: &str| shown.iter().find(|shown| shown.key == key).unwrap();
    assert_eq!(of("publish.linger").origin, "flag --linger");
    assert!(of("publish.batch_bytes").origin.starts_with("file /"));
    assert_eq!(of("publish.batch_bytes").value, serde_json::json!("64K"));
    assert_eq!(of("publish.ack").origin, "default");
    assert_eq!(of("publish.ack").value, serde_json::json!("ordered"));
    assert_eq!(shown.len(), known().len(), "every setting is shown");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_and_an_unnamed_one_is_not() {
    let missing = find(Some(Path::new("/nonexistent/x.toml")), |_| None).unwrap_err();
    assert!(missing.to_string().contains("--config names it"), "{missing}");
    let missing = find(None, |name| {
        (name == "LANDFALL_CONFIG").then(|| PathBuf::from("/nonexistent/y.toml"))
    })
    .unwrap_err();
    assert!(missing.to_string().contains("LANDFALL_CONFIG names it"), "{missing}");
    assert_eq!(find(None, |_| None).unwrap(), None);
}
