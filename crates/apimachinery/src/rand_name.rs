//! Names that are made up: the suffix of `generateName`, and hashes that become part of names.
//! Upstream's `util/rand` and `storage/names`.

use std::hash::{BuildHasher, Hasher, RandomState};

/// No vowels, so that no words come out; nothing that reads like something else.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// A generated name's base is cut to leave room for the suffix in 63 bytes.
pub const MAX_GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;

/// So many random characters. Not a secret.
pub fn random_string(length: usize) -> String {
    let mut out = String::with_capacity(length);
    while out.len() < length {
        // Every state has other keys, which the kernel's randomness began: cheap and unguessed.
        let mut bits = RandomState::new().build_hasher().finish();
        for _ in 0..64 / 5 {
            match ALPHABET.get((bits & 31) as usize) {
                Some(c) if out.len() < length => out.push(char::from(*c)),
                _ => {}
            }
            bits >>= 5;
        }
    }
    out
}

/// A name from a `generateName`.
pub fn generate_name(base: &str) -> String {
    let base = &base[..base.floor_char_boundary(MAX_GENERATED_BASE)];
    format!("{base}{}", random_string(SUFFIX_LENGTH))
}

/// Text in the alphabet of generated names, one character for each.
pub fn safe_encode_string(text: &str) -> String {
    text.chars().map(|c| char::from(ALPHABET[c as usize % ALPHABET.len()])).collect()
}

/// FNV-1a in 32 bits: what template and revision hashes are made with.
#[derive(Clone, Copy, Debug)]
pub struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32a {
    /// Takes in more bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    }

    /// The hash of all bytes so far.
    pub const fn finish(self) -> u32 {
        self.0
    }
}

/// The FNV-1a hash of some bytes.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    let mut hash = Fnv32a::default();
    hash.write(bytes);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let (a, b) = (generate_name("web-"), generate_name("web-"));
        assert_eq!((a.len(), a == b), (9, false));
        assert!(a["web-".len()..].bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_eq!(generate_name(&"é".repeat(60)).len(), 63);
        assert_eq!(random_string(40).len(), 40);
    }

    #[test]
    fn hashes_are_those_of_go() {
        for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv32a(text.as_bytes()), hash);
        }
        assert_eq!(safe_encode_string("2166136261"), "65bb57b6b5");
    }
}
