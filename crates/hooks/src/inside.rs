//! What upstream's own types look like, where they differ from the published ones: messages that show a part of an
//! object show it in that form. The differences are facts of `inside.txt`; everything else follows from the rows.

use std::collections::HashMap;
use std::sync::LazyLock;

/// How a member's presence differs from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Same,
    /// Told from zero outside only.
    Value,
    /// Told from zero inside only.
    Pointer,
    /// A struct that is there even when nothing is said of it.
    Always,
}

/// A member of a type, as it is inside.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its JSON name.
    pub name: &'static str,
    /// It stands in the enclosing object outside.
    pub outer: bool,
    pub go: String,
    pub presence: Presence,
}

#[derive(Default)]
struct Facts {
    names: HashMap<&'static str, &'static str>,
    types: HashMap<&'static str, Vec<Member>>,
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    let mut lines: Vec<Vec<&'static str>> = Vec::new();
    for line in include_str!("inside.txt").lines().filter(|line| !line.starts_with('#')) {
        match lines.last_mut() {
            Some(last) if line.starts_with(' ') => last.extend(line.split_whitespace()),
            _ => lines.push(line.split_whitespace().collect()),
        }
    }
    let mut facts = Facts::default();
    for line in lines {
        match line.split_first() {
            Some((&"names", words)) => facts.names.extend(words.iter().filter_map(|w| w.split_once('='))),
            Some((name, words)) => {
                let members = words.iter().map(|word| member(&facts, word)).collect();
                facts.types.insert(*name, members);
            }
            None => {}
        }
    }
    facts
});

fn member(facts: &Facts, word: &'static str) -> Member {
    let (word, presence) = match word.char_indices().next_back() {
        Some((at, '&')) => (&word[..at], Presence::Value),
        Some((at, '*')) => (&word[..at], Presence::Pointer),
        Some((at, '!')) => (&word[..at], Presence::Always),
        _ => (word, Presence::Same),
    };
    let (word, outer) = word.strip_prefix('^').map_or((word, false), |rest| (rest, true));
    let (name, go) = match word.split_once('=') {
        Some((name, go)) => (name, go.to_owned()),
        None => (word, capital(facts, word)),
    };
    Member { name, outer, go, presence }
}

fn capital(facts: &Facts, name: &str) -> String {
    if let Some(go) = facts.names.get(name) {
        return (*go).to_owned();
    }
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The Go name of a member of a type that has no line of its own.
pub(super) fn go_name(name: &str) -> String {
    capital(&FACTS, name)
}

/// The members of a type, as `core.v1.PodSpec`, if they differ from the published ones.
pub(super) fn members(name: &str) -> Option<&'static [Member]> {
    FACTS.types.get(name).map(Vec::as_slice)
}
