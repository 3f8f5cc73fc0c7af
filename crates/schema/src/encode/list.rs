//! What stands before and after the items of a list. Built-in lists name their kind first, lists of custom resources
//! have their keys sorted, as upstream writes them.

use super::text::write_integer;
use super::write_string;
use bytes::BytesMut;

/// A list's own members.
#[derive(Debug, Clone, Default)]
pub struct ListHead<'a> {
    /// `PodList`.
    pub kind: &'a str,
    pub api_version: &'a str,
    pub revision: u64,
    pub continue_token: &'a str,
    pub remaining_item_count: Option<i64>,
    /// A list of custom resources: its keys are sorted.
    pub sorted: bool,
}

impl ListHead<'_> {
    /// Appends everything up to the first item.
    pub fn write_head(&self, out: &mut BytesMut) {
        let mut text = Vec::with_capacity(160);
        if self.sorted {
            text.extend_from_slice(b"{\"apiVersion\":");
            write_string(&mut text, self.api_version);
        } else {
            text.extend_from_slice(b"{\"kind\":");
            write_string(&mut text, self.kind);
            text.extend_from_slice(b",\"apiVersion\":");
            write_string(&mut text, self.api_version);
            text.extend_from_slice(b",\"metadata\":");
            self.metadata(&mut text);
        }
        text.extend_from_slice(b",\"items\":[");
        out.extend_from_slice(&text);
    }

    /// Appends everything after the last item, without a newline.
    pub fn write_tail(&self, out: &mut BytesMut) {
        let mut text = vec![b']'];
        if self.sorted {
            text.extend_from_slice(b",\"kind\":");
            write_string(&mut text, self.kind);
            text.extend_from_slice(b",\"metadata\":");
            self.metadata(&mut text);
        }
        text.push(b'}');
        out.extend_from_slice(&text);
    }

    fn metadata(&self, out: &mut Vec<u8>) {
        let mut members: Vec<(&str, Vec<u8>)> = Vec::new();
        if self.revision != 0 {
            let mut text = vec![b'"'];
            write_integer(&mut text, self.revision as i64);
            text.push(b'"');
            members.push(("resourceVersion", text));
        }
        // Upstream's unstructured lists always carry the two members of paging that are set, sorted.
        if !self.continue_token.is_empty() || self.sorted {
            let mut text = Vec::new();
            write_string(&mut text, self.continue_token);
            members.push(("continue", text));
        }
        if let Some(count) = self.remaining_item_count {
            let mut text = Vec::new();
            write_integer(&mut text, count);
            members.push(("remainingItemCount", text));
        }
        if self.sorted {
            members.sort_unstable_by_key(|(name, _)| *name);
        }
        out.push(b'{');
        for (i, (name, text)) in members.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_string(out, name);
            out.push(b':');
            out.extend_from_slice(text);
        }
        out.push(b'}');
    }
}
