//! Keys that stand twice in a YAML mapping, told as Go's YAML parser tells them: by line. Only texts that are known to have
//! some are read that way.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::BTreeSet;
use std::fmt;

/// A node, of which nothing is kept but the complaints of all that is in it.
struct Node(Vec<String>);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML node")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node(Vec::new()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(Node(mut found)) = seq.next_element()? {
            all.append(&mut found);
        }
        Ok(Node(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some(key) = map.next_key::<String>()? {
            let value: Spanned<Node> = map.next_value()?;
            all.extend(value.value.0);
            if seen.contains(&key) {
                // The line is that of the value, as it is upstream.
                all.push(format!("  line {}: key {key:?} already set in map", value.referenced.line()));
            }
            seen.insert(key);
        }
        Ok(Node(all))
    }
}

/// What Go's strict parser says of a text in which keys stand twice; empty when none do, or it is no YAML.
pub(super) fn complaint(text: &str) -> String {
    let read = super::yaml::on_a_deep_stack(|| {
        let options = super::yaml::options();
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |de| Node::deserialize(de)).ok()
    });
    match read {
        Ok(Some(Node(found))) if !found.is_empty() => {
            format!("yaml: unmarshal errors:\n{}", found.join("\n"))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&complaint(text));
    }

    #[test]
    fn lines() {
        check("a: 1\nb: [1, {c: 2}]\n", expect![""]);
        check("\na: 1\nb:\n  c: x\n  c:\n    d: 1\na: 2\n- no yaml", expect![""]);
        check(
            "\na: 1\nb:\n  - c: x\n    c:\n      d: 1\n      d: null\na: 2\n",
            expect![[r#"
                yaml: unmarshal errors:
                  line 7: key "d" already set in map
                  line 6: key "c" already set in map
                  line 8: key "a" already set in map"#]],
        );
        check(
            r#"{"spec":{"foo":1,"foo":2}}"#,
            expect![[r#"
                yaml: unmarshal errors:
                  line 1: key "foo" already set in map"#]],
        );
    }
}
