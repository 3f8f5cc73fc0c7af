//! What two answers differ in.

use crate::answer::{Answer, Content};
use apimachinery::value::Value;

/// The places where one tree differs from another, each with the new value; `null` where there is none any more.
pub fn changes(from: &Value, to: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    walk(from, to, String::new(), &mut found);
    found
}

fn walk(from: &Value, to: &Value, at: String, found: &mut Vec<(String, Value)>) {
    match (from, to) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, old) in a {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                match b.get(name) {
                    Some(new) => walk(old, new, at, found),
                    None => found.push((format!("-{at}"), Value::Null)),
                }
            }
            for (name, new) in b.iter().filter(|(name, _)| !a.contains_key(name)) {
                found.push((format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), new.clone()));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (old, new)) in a.iter().zip(b).enumerate() {
                walk(old, new, format!("{at}/{i}"), found);
            }
        }
        _ if from == to => {}
        _ => found.push((at, to.clone())),
    }
}

/// A tree with the changes.
pub fn apply(from: &Value, changes: &[(String, Value)]) -> Value {
    let mut tree = from.clone();
    for (at, new) in changes {
        let (gone, at) = at.strip_prefix('-').map_or((false, at.as_str()), |at| (true, at));
        let Some((parent, last)) = at.rsplit_once('/') else {
            tree = new.clone();
            continue;
        };
        let name = last.replace("~1", "/").replace("~0", "~");
        match tree.pointer_mut(parent).unwrap() {
            Value::Object(map) if gone => drop(map.remove(&name)),
            Value::Object(map) => drop(map.insert(name, new.clone())),
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = new.clone(),
            _ => panic!("{at} is in no tree"),
        }
    }
    tree
}

fn short(value: &impl std::fmt::Display) -> String {
    let text = value.to_string();
    if text.len() > 20_000 { format!("{}…", text.chars().take(20_000).collect::<String>()) } else { text }
}

/// What is said of an answer that is not the recorded one.
pub fn differences(wanted: &Answer, got: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if wanted.code != got.code {
        found.push(format!("code: wanted {}, got {}", wanted.code, got.code));
    }
    if wanted.media != got.media {
        found.push(format!("media type: wanted {}, got {}", wanted.media, got.media));
    }
    if wanted.warnings != got.warnings {
        found.push(format!("warnings: wanted {:?}, got {:?}", wanted.warnings, got.warnings));
    }
    match (&wanted.body, &got.body) {
        (a, b) if a == b => {}
        (Content::Json(a), Content::Json(b)) => {
            let (mut from, mut to): (Value, Value) =
                (serde_json::from_str(a).unwrap(), serde_json::from_str(b).unwrap());
            let disordered = sort_conflicts(&mut from) && sort_conflicts(&mut to);
            let changes = changes(&from, &to);
            if changes.is_empty() && disordered {
                return found;
            }
            if changes.is_empty() && sorted(a) == *a {
                // Recorded as changes of another answer: the order of fields was not kept.
                return found;
            }
            if changes.is_empty() {
                let at = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
                let show = |t: &str| {
                    let from = at.saturating_sub(60);
                    String::from_utf8_lossy(&t.as_bytes()[from..t.len().min(at + 80)]).into_owned()
                };
                found.push(format!("bytes: wanted {}\n          got {}", show(a), show(b)));
            }
            for (at, new) in changes {
                let old = from.pointer(at.trim_start_matches('-')).cloned();
                let old = old.map_or("nothing".to_owned(), |v| short(&v));
                let new = if at.starts_with('-') { "nothing".to_owned() } else { short(&new) };
                found.push(format!("{}: wanted {old}\n        got {new}", at.trim_start_matches('-')));
            }
        }
        (a, b) => {
            let show = |c: &Content| match c {
                Content::Json(t) | Content::Text(t) => t.clone(),
                Content::Bytes(b) => String::from_utf8_lossy(b).escape_debug().to_string(),
            };
            let (a, b) = (show(a), show(b));
            let at = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
            let from = at.saturating_sub(120);
            let part = |t: &str| t.chars().skip(from).take(500).collect::<String>();
            found.push(format!("body at {at}: wanted {}\n        got {}", part(&a), part(&b)));
        }
    }
    found
}

/// Whether two refusals have the same words, whatever code they have.
pub fn says_the_same(wanted: &Answer, got: &Answer) -> bool {
    let message = |answer: &Answer| match &answer.body {
        Content::Json(text) => serde_json::from_str::<Value>(text).ok()?.get("message").cloned(),
        _ => None,
    };
    message(wanted).is_some() && message(wanted) == message(got)
}

fn is_custom(group: &str) -> bool {
    group.ends_with(".example")
}

/// Upstream tells the conflicts of an apply in the order of a map of Go, which is none.
fn sort_conflicts(status: &mut Value) -> bool {
    let applied = status["message"].as_str().is_some_and(|m| m.starts_with("Apply failed with "));
    // So are the mistakes in an object of a custom kind told: its message only joins them.
    if status["reason"] == "Invalid" && status["details"]["group"].as_str().is_some_and(is_custom) {
        if let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) {
            causes.sort_by_key(Value::to_string);
        }
        status["message"] = Value::Null;
        return true;
    }
    let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) else {
        return false;
    };
    if applied {
        causes.sort_by_key(Value::to_string);
    }
    applied
}

fn sorted(text: &str) -> String {
    serde_json::from_str::<Value>(text).map(|v| v.to_string()).unwrap_or_default()
}
