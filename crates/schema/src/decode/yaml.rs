//! YAML as kubectl and upstream read it: YAML 1.1 words and octals, JSON-compatible keys, one document.

use super::{Cx, DecodeError, Decoded, FieldValidation, visit};
use crate::table::Table;
use apimachinery::value::Value;
use serde::de::DeserializeSeed;

/// Larger than any object the API accepts.
const MAX_BYTES: usize = 3 * 1024 * 1024;
const MAX_DEPTH: usize = 127;
const STACK: usize = 16 << 20;

pub(super) fn free(text: &str, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    if text.len() > MAX_BYTES {
        return Err(DecodeError(format!(
            "error converting YAML to JSON: yaml: document exceeds {MAX_BYTES} bytes"
        )));
    }
    let read = on_a_deep_stack(|| {
        let mut cx = Cx::new(Table::empty(), validation);
        let value = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |de| {
            visit::Free { cx: &mut cx }.deserialize(de)
        })
        .map_err(|error| DecodeError(format!("error converting YAML to JSON: yaml: {error}")))?;
        let mut decoded = cx.finish(integral(value))?;
        if !decoded.strict.is_empty() {
            decoded.strict = vec![super::yaml_keys::complaint(text)];
        }
        Ok(decoded)
    });
    read.unwrap_or_else(|error| Err(DecodeError(format!("error converting YAML to JSON: {error}"))))
}

/// Refuses what YAML does not let stand in a text.
pub(super) fn readable(text: &str) -> Result<(), DecodeError> {
    let allowed = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
            && c != '\u{feff}'
    };
    match text.trim_start_matches('\u{feff}').chars().all(allowed) {
        true => Ok(()),
        false => Err(DecodeError("yaml: control characters are not allowed".into())),
    }
}

/// The first document of a text, which must be of YAML 1.1 where it says of what version it is.
pub(super) fn first_document(text: &str) -> Result<&str, DecodeError> {
    let (mut at, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let marks = |mark: &str| {
            line.strip_prefix(mark).is_some_and(|rest| rest.trim_start() != rest || rest.is_empty())
        };
        if marks("---") || marks("...") {
            if begun {
                return Ok(&text[..at]);
            }
            begun = true;
        } else if let Some(version) = line.strip_prefix("%YAML ").filter(|_| !begun) {
            if version.trim() != "1.1" {
                return Err(DecodeError("yaml: found incompatible YAML document".into()));
            }
        } else if !line.trim().is_empty() && !line.starts_with('#') && !line.starts_with('%') {
            begun = true;
        }
        at += line.len();
    }
    Ok(text)
}

/// How YAML is read: as deep as JSON is.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
    }
}

/// The parser needs tens of kilobytes for a level: more than a thread that serves requests has for all of them.
pub(super) fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("yaml".into()).stack_size(STACK);
        let done = thread.spawn_scoped(scope, work)?.join();
        Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Go writes `1.0` as `1`, and so it is an integer when it comes back from JSON.
fn integral(value: Value) -> Value {
    match value {
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 9.0e18 => Value::from(f as i64),
            _ => Value::Number(n),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(integral).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, integral(v))).collect()),
        other => other,
    }
}
