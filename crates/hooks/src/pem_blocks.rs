//! PEM as Go reads it: lenient about what stands around blocks, and about blocks that are none.

use base64::Engine as _;

/// A block.
pub(super) struct Block {
    pub label: String,
    pub has_headers: bool,
    pub der: Vec<u8>,
}

/// All blocks; what stands between them, or is none after all, is passed over.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches([' ', '\t', '\r'])).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        if let Some((block, next)) = label.and_then(|label| Some((block(label, &lines[at..])?, at))) {
            at = next + block.1;
            found.push(block.0);
        }
    }
    found
}

/// The block of this label whose lines these are, and how many of them it takes. It ends at the next line of dashes or not at
/// all: none is Base64, and so no text is gone through again for each head in it.
fn block(label: &str, lines: &[&str]) -> Option<(Block, usize)> {
    let end = lines.iter().position(|line| line.starts_with("-----"))?;
    if lines[end] != format!("-----END {label}-----") {
        return None;
    }
    let headers = lines[..end].iter().take_while(|line| line.contains(':')).count();
    let body: String = lines[headers..end].iter().flat_map(|line| line.split_whitespace()).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).ok()?;
    Some((Block { label: label.to_owned(), has_headers: headers > 0, der }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, labels: &[&str]) {
        let found: Vec<String> = blocks(text).into_iter().map(|block| block.label).collect();
        assert_eq!(found, labels, "{text}");
    }

    #[test]
    fn what_is_no_block_is_passed_over() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nk: v\n\nAAAA\n-----END {label}-----\n");
        check(&format!("of\n{}and\n{}", block("A"), block("B")), &["A", "B"]);
        check(&format!("-----BEGIN X-----\n{}", block("A")), &["A"]);
        check(&format!("-----BEGIN X-----\nAAAA\n{}-----END X-----\n", block("A")), &["A"]);
        check(&format!("-----BEGIN X-----\nAAAA\n-----END Y-----\n-----END X-----\n{}", block("A")), &["A"]);
        check(&format!("-----BEGIN X-----\nno base64!\n-----END X-----\n{}", block("A")), &["A"]);
        check(&"-----BEGIN X-----\n".repeat(100_000), &[]);
    }
}
