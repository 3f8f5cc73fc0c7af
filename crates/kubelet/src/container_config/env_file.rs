//! The files that `fileKeyRef` reads: `NAME='value'` lines, values in single quotes, over several lines if need be. Pure.
//! Upstream: `pkg/kubelet/util/env`.

/// The value of a key; empty when the file does not have it.
pub(super) fn value(text: &str, key: &str) -> Result<String, String> {
    let invalid =
        |line: usize, why: &str| Err(format!("invalid environment variable format at line {line}: {why}"));
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { return invalid(number, "missing '='") };
        let bare = name.trim_end_matches([' ', '\t']);
        if bare.is_empty() {
            return invalid(number, "empty variable name");
        }
        if bare != name {
            return invalid(number, "whitespace before '=' is not allowed");
        }
        // As a shell reads it: the assignment ends with the blank.
        if rest.starts_with([' ', '\t']) {
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let Some(quoted) = rest.strip_prefix('\'') else {
            return invalid(number, "value must be enclosed in single quotes");
        };
        let mut value = String::new();
        let (mut part, mut at) = (quoted, number);
        let behind = loop {
            if let Some((end, behind)) = part.split_once('\'') {
                value.push_str(end);
                break behind.trim_start_matches([' ', '\t']);
            }
            value.push_str(part);
            value.push('\n');
            match lines.next() {
                Some((next, number)) => (part, at) = (next, number),
                None => {
                    return Err(format!(
                        "invalid environment variable format starting at line {number}: unclosed single quote"
                    ));
                }
            }
        };
        if !behind.is_empty() && !behind.starts_with('#') {
            return invalid(at, "unexpected content after closing quote");
        }
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let shown = match value(text, "KEY") {
            Ok(value) => format!("{value:?}"),
            Err(error) => error,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn values_are_found() {
        check("KEY='a b'", expect![[r#""a b""#]]);
        check("# KEY='x'\n\n  \t\nA='1'\n\tKEY='$(B) \\n \"q\"' # why", expect![[r#""$(B) \\n \"q\"""#]]);
        check("A='x\ny'\nKEY='one\n# two\n'", expect![[r#""one\n# two\n""#]]);
        check("KEY='first'\nKEY='second'", expect![[r#""first""#]]);
        check("KEY= 'x'", expect![[r#""""#]]);
        check("A='1'", expect![[r#""""#]]);
        check("KEY=''", expect![[r#""""#]]);
        // What stands behind the key is not looked at.
        check("KEY='a'\nbroken", expect![[r#""a""#]]);
    }

    #[test]
    fn nonsense_is_refused() {
        check("A", expect!["invalid environment variable format at line 1: missing '='"]);
        check("\n='x'", expect!["invalid environment variable format at line 2: empty variable name"]);
        check(
            "A ='x'",
            expect!["invalid environment variable format at line 1: whitespace before '=' is not allowed"],
        );
        check(
            "A=x",
            expect!["invalid environment variable format at line 1: value must be enclosed in single quotes"],
        );
        check(
            "\nA='x\ny",
            expect!["invalid environment variable format starting at line 2: unclosed single quote"],
        );
        check(
            "A='x\ny' z",
            expect!["invalid environment variable format at line 2: unexpected content after closing quote"],
        );
    }
}
