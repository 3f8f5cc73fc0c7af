//! Which JSON field stands under which protobuf number: made once per type, with the messages that JSON inlines.

use crate::row::{ProtoField, TypeRow};
use crate::table::Table;
use std::collections::HashMap;

/// The parts of a message by ascending number.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Part {
    /// A field of the row.
    Field { tag: u32, index: usize },
    /// A message whose fields are the row's own in JSON.
    Inlined { tag: u32, plan: Plan },
}

impl Part {
    pub(super) fn tag(&self) -> u32 {
        match self {
            Part::Field { tag, .. } | Part::Inlined { tag, .. } => *tag,
        }
    }
}

impl Plan {
    pub(super) fn part(&self, tag: u32) -> Option<&Part> {
        self.parts.binary_search_by_key(&tag, Part::tag).ok().map(|i| &self.parts[i])
    }
}

type ProtoOnly = fn(&str) -> Option<&'static [ProtoField]>;

pub(super) fn plans(table: &'static Table, proto_only: ProtoOnly) -> Vec<Plan> {
    let by_message: HashMap<&str, &TypeRow> =
        table.types().iter().filter(|t| !t.proto.is_empty()).map(|t| (t.proto.as_ref(), t)).collect();
    let messages = Messages { by_message, proto_only };
    table
        .types()
        .iter()
        .map(|row| {
            let mut parts: Vec<Part> = row
                .fields
                .iter()
                .enumerate()
                .filter(|(_, f)| f.tag != 0)
                .map(|(index, f)| Part::Field { tag: f.tag, index })
                .collect();
            for inlined in row.inlined.iter() {
                let message = absolute(&row.proto, &inlined.message);
                parts.push(Part::Inlined { tag: inlined.tag, plan: messages.inlined(row, &message) });
            }
            sorted(parts)
        })
        .collect()
}

fn sorted(mut parts: Vec<Part>) -> Plan {
    parts.sort_by_key(Part::tag);
    Plan { parts }
}

/// A message's full name: names without a leading dot are of the same package.
fn absolute(owner: &str, name: &str) -> String {
    match (name.strip_prefix('.'), owner.rsplit_once('.')) {
        (Some(absolute), _) => absolute.to_owned(),
        (None, Some((package, _))) => format!("{package}.{name}"),
        (None, None) => name.to_owned(),
    }
}

struct Messages<'a> {
    by_message: HashMap<&'a str, &'a TypeRow>,
    proto_only: ProtoOnly,
}

impl Messages<'_> {
    /// The plan of a message within `row`, whose fields it has under other numbers.
    fn inlined(&self, row: &TypeRow, message: &str) -> Plan {
        let mut parts = Vec::new();
        if let Some(fields) = (self.proto_only)(message) {
            for field in fields {
                match row.index(&field.name) {
                    Some(index) => parts.push(Part::Field { tag: field.tag, index }),
                    // Not in JSON by that name: its fields are, one level further in.
                    None => {
                        let inner = absolute(message, &field.ty);
                        parts.push(Part::Inlined { tag: field.tag, plan: self.inlined(row, &inner) });
                    }
                }
            }
        } else if let Some(inner) = self.by_message.get(message) {
            for field in inner.fields.iter().filter(|f| f.tag != 0) {
                if let Some(index) = row.index(&field.name) {
                    parts.push(Part::Field { tag: field.tag, index });
                }
            }
            for inlined in inner.inlined.iter() {
                let name = absolute(message, &inlined.message);
                parts.push(Part::Inlined { tag: inlined.tag, plan: self.inlined(row, &name) });
            }
        }
        sorted(parts)
    }
}
