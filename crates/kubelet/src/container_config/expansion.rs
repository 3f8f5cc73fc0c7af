//! `$(NAME)` in commands, arguments, environment values and sub-paths: replaced when known, left alone when not; `$$` is
//! one dollar. Upstream: `third_party/forked/golang/expansion`.

use api::core::v1::EnvVar;
use std::collections::BTreeMap;

/// Expands references; what `lookup` does not know stays as written.
pub(crate) fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('(') {
            match inner.find(')') {
                Some(end) => {
                    let name = &inner[..end];
                    match lookup(name) {
                        Some(value) => out.push_str(&value),
                        None => {
                            out.push_str("$(");
                            out.push_str(name);
                            out.push(')');
                        }
                    }
                    rest = &inner[end + 1..];
                }
                // Without an end it is no reference.
                None => {
                    out.push_str("$(");
                    rest = inner;
                }
            }
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Expands with a map.
pub(crate) fn expand_map(input: &str, values: &BTreeMap<String, String>) -> String {
    expand(input, |name| values.get(name).cloned())
}

/// Expands with what the spec states literally, for probes, which know no other environment.
pub(crate) fn expand_static(command: &[String], env: &[EnvVar]) -> Vec<String> {
    let lookup = |name: &str| {
        env.iter().rev().find(|e| e.name == name && e.value_from.is_none()).map(|e| e.value.clone())
    };
    command.iter().map(|word| expand(word, lookup)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_upstream() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (input, want) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C)", "$(C)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("", ""),
        ] {
            assert_eq!(expand_map(input, &values), want, "{input}");
        }
    }
}
