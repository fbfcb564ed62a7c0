//! The settings that exist, and the nearest one to a name that does not.

use figment::value::Value;

use super::Settings;
use crate::error::{Failure, Outcome};

/// Every setting as `section.key`, in the order of the alphabet.
pub(super) fn known() -> Vec<String> {
    let mut keys = Vec::new();
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(Settings::default()) {
        for (section, settings) in sections {
            let Some(settings) = settings.as_object() else { continue };
            keys.extend(settings.keys().map(|key| format!("{section}.{key}")));
        }
    }
    keys.sort();
    keys
}

/// The effective value of a setting.
pub(super) fn json(settings: &Settings, key: &str) -> Option<serde_json::Value> {
    let (section, key) = key.split_once('.')?;
    Some(serde_json::to_value(settings).ok()?.get(section)?.get(key)?.clone())
}

/// Refuses the first name that is no setting.
pub(super) fn check(whole: &Value, origin: impl Fn(&Value, &str) -> String) -> Outcome {
    let known = known();
    let mut found = Vec::new();
    flatten(whole, String::new(), &mut found);
    for (key, value) in found {
        if known.contains(&key) {
            continue;
        }
        let is_section = known.iter().any(|name| name.starts_with(&format!("{key}.")));
        let why = if is_section {
            format!("{key} is a section with settings of its own ({})", origin(value, &key))
        } else {
            match nearest(&key, &known) {
                Some(near) => format!("there is no such setting; did you mean {near}?"),
                None => "there is no such setting".into(),
            }
        };
        let place = origin(value, &key);
        return Err(Failure::usage(format!("unknown setting {key} ({place})"), why)
            .next("landfall config show"));
    }
    Ok(())
}

fn flatten<'v>(value: &'v Value, path: String, found: &mut Vec<(String, &'v Value)>) {
    match value.as_dict() {
        Some(dict) if path.split('.').count() < 2 || path.is_empty() => {
            for (name, inner) in dict {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(inner, path, found);
            }
        }
        _ => found.push((path, value)),
    }
}

/// The setting that was most likely meant: nearest as a whole, or by its last word alone.
pub(super) fn nearest(key: &str, known: &[String]) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    known
        .iter()
        .map(|name| {
            let whole = strsim::jaro_winkler(key, name);
            let tail = strsim::jaro_winkler(&last(key), &last(name));
            // A right word in the wrong section is nearer than a wrong word in the right one.
            let misplaced = if tail == 1.0 { 0.9 + 0.1 * whole } else { 0.0 };
            (whole.max(misplaced), name)
        })
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.clone())
}
