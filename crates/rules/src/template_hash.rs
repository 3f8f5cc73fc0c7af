//! Names derived from content: `pod-template-hash`, controller revision hashes. FNV-1a (32 bits) over the canonical JSON
//! (keys sorted, no blanks), written in an alphabet without vowels. Upstream hashes a dump of Go's memory, which nobody
//! else can reproduce; equality of content is what matters, and the alphabet and length are the same.

use apimachinery::value::{Key, Value};
use serde::Serialize;

/// The alphabet of upstream's `rand.SafeEncodeString`: no vowels, no look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// 32-bit FNV-1a.
#[derive(Clone, Copy, Debug)]
pub struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Fnv32a(0x811c_9dc5)
    }
}

impl Fnv32a {
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    pub fn finish(self) -> u32 {
        self.0
    }
}

/// The hash of anything that serializes; `collision_count` is the owner's, bumped when another object has the name.
pub fn hash(content: &impl Serialize, collision_count: Option<i32>) -> u32 {
    let mut hasher = Fnv32a::default();
    // Serialization of API types to a tree cannot fail: their keys are strings. An error would hash as null.
    write_canonical(&apimachinery::value::to_value(content).unwrap_or(Value::Null), &mut hasher);
    if let Some(count) = collision_count {
        hasher.write(&count.to_le_bytes());
    }
    hasher.finish()
}

/// [`hash`] as a label value, e.g. `6b7f48c9d5`.
pub fn template_hash(content: &impl Serialize, collision_count: Option<i32>) -> String {
    safe_encode(&hash(content, collision_count).to_string())
}

/// Replaces each character by one of the safe alphabet, so that a name never spells a word.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| ALPHABET[usize::from(b) % ALPHABET.len()] as char).collect()
}

fn write_canonical(value: &Value, out: &mut Fnv32a) {
    match value {
        Value::Object(members) => {
            let mut keys: Vec<&Key> = members.keys().collect();
            keys.sort();
            out.write(b"{");
            for key in keys {
                out.write(Value::String(key.to_string()).to_string().as_bytes());
                out.write(b":");
                write_canonical(&members[key], out);
                out.write(b",");
            }
            out.write(b"}");
        }
        Value::Array(items) => {
            out.write(b"[");
            for item in items {
                write_canonical(item, out);
                out.write(b",");
            }
            out.write(b"]");
        }
        scalar => out.write(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn stable_and_independent_of_order() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":[true,null,"x"]}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":[true,null,"x"],"a":1}"#).unwrap();
        assert_eq!(template_hash(&a, None), template_hash(&b, None));
        assert_ne!(template_hash(&a, None), template_hash(&a, Some(1)));
        assert_ne!(hash(&json!(["a", "b"]), None), hash(&json!(["ab"]), None));
        // A change here rolls every Deployment of an upgraded cluster.
        assert_eq!(template_hash(&json!({ "a": 1 }), None), "fbcb65c7c");
    }
}
