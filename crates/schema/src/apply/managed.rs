//! `metadata.managedFields`: read, capped, sorted and written.

use super::set::FieldSet;
use apimachinery::value::{Map, Value};

/// Update entries beyond this many are joined into one.
const MAX_UPDATERS: usize = 10;
const JOINED: &str = "ancient-changes";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// Whether both are entries of the same manager: an applier is one whatever version it applies.
    pub(super) fn is_same(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    pub(super) fn describe(&self) -> String {
        use apimachinery::quote::quote;
        let mut out = quote(&self.manager);
        if !self.subresource.is_empty() {
            out += &format!(" with subresource {}", quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            out += &format!(" using {}", self.api_version);
        }
        out
    }
}

/// Reads the list; an error where upstream would not take it.
pub(super) fn read(value: Value) -> Result<Vec<Entry>, String> {
    let items = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        _ => return Err("managedFields must be a list".into()),
    };
    let mut out: Vec<Entry> = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let Value::Object(mut map) = item else {
            return Err("managed fields entry must be an object".into());
        };
        let mut text = |name: &str| match map.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
        }
        let (manager, subresource, time) = (text("manager"), text("subresource"), text("time"));
        let fields = FieldSet::from_value(map.remove("fieldsV1").unwrap_or_default())
            .ok_or_else(|| format!("error decoding set in managed fields entry {i}"))?;
        let time = Some(time).filter(|t| !t.is_empty());
        let entry = Entry { manager, operation, api_version, subresource, time, fields };
        match out.iter_mut().find(|e| e.is_same(&entry)) {
            Some(earlier) => *earlier = entry,
            None => out.push(entry),
        }
    }
    Ok(out)
}

/// The list as it is stored; null when there is none.
pub(super) fn write(mut entries: Vec<Entry>) -> Value {
    if entries.is_empty() {
        return Value::Null;
    }
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (e.operation, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone())
        };
        key(a).cmp(&key(b))
    });
    entries
        .into_iter()
        .map(|entry| {
            let mut map = Map::new();
            let mut text = |name: &str, value: String| {
                if !value.is_empty() {
                    map.insert(name, Value::String(value));
                }
            };
            text("manager", entry.manager);
            text(
                "operation",
                if entry.operation == Operation::Apply { "Apply".into() } else { "Update".into() },
            );
            text("apiVersion", entry.api_version);
            text("time", entry.time.unwrap_or_default());
            text("fieldsType", "FieldsV1".into());
            text("subresource", entry.subresource);
            map.insert("fieldsV1", Value::Object(entry.fields.0));
            Value::Object(map)
        })
        .collect()
}

/// Joins the oldest update entries of a version until there are no more than allowed.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<Entry> =
        entries.extract_if(.., |entry| entry.operation == Operation::Update).collect();
    let mut count = updaters.len();
    if count > MAX_UPDATERS {
        updaters.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
        let mut first_of: Vec<(String, usize)> = Vec::new();
        let mut kept: Vec<Option<Entry>> = updaters.into_iter().map(Some).collect();
        for i in 0..kept.len() {
            if count <= MAX_UPDATERS {
                break;
            }
            let Some(version) = kept[i].as_ref().map(|e| e.api_version.clone()) else { continue };
            match first_of.iter().find(|(v, _)| *v == version) {
                None => first_of.push((version, i)),
                Some((_, bucket)) => {
                    let bucket = *bucket;
                    let Some(taken) = kept[i].take() else { continue };
                    if let Some(into) = &mut kept[bucket] {
                        into.manager = JOINED.into();
                        into.subresource = String::new();
                        into.fields = std::mem::take(&mut into.fields).union(&taken.fields);
                        into.time = taken.time;
                    }
                    count -= 1;
                }
            }
        }
        updaters = kept.into_iter().flatten().collect();
    }
    entries.extend(updaters);
}
