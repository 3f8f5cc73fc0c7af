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

/// The block of this label whose lines these are, and how many of them it takes.
fn block(label: &str, lines: &[&str]) -> Option<(Block, usize)> {
    let end = format!("-----END {label}-----");
    let end = lines.iter().position(|line| *line == end)?;
    let headers = lines[..end].iter().take_while(|line| line.contains(':')).count();
    let body: String = lines[headers..end].iter().flat_map(|line| line.split_whitespace()).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).ok()?;
    Some((Block { label: label.to_owned(), has_headers: headers > 0, der }, end + 1))
}
