//! JSON text with line breaks and two spaces a level, as Go's `MarshalIndent` writes it.

/// Indents compact JSON. Text that is not JSON comes out as it was read.
pub fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                // What is empty stays on its line.
                match bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\t' | b'\r' => {}
            _ => out.push(byte),
        }
    }
    out
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::indent;
    use expect_test::{Expect, expect};

    fn check(json: &str, expected: Expect) {
        expected.assert_eq(&String::from_utf8(indent(json.as_bytes())).unwrap());
    }

    #[test]
    fn documents() {
        check(
            r#"{"a":{},"b":[],"c":["x, {y}: \"z\\",{"d":1}]}"#,
            expect![[r#"
                {
                  "a": {},
                  "b": [],
                  "c": [
                    "x, {y}: \"z\\",
                    {
                      "d": 1
                    }
                  ]
                }"#]],
        );
    }
}
