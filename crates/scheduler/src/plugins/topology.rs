//! Counts by topology: how many pods of some sort are in each zone, on each host, in each domain of any node label.

use std::collections::HashMap;

/// Counts by label key and value. What counts nothing is not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(HashMap<String, HashMap<String, i64>>);

impl Counts {
    pub(super) fn add(&mut self, key: &str, value: Option<&str>, by: i64) {
        let Some(value) = value else { return };
        let values = match self.0.get_mut(key) {
            Some(values) => values,
            None => self.0.entry(key.into()).or_default(),
        };
        match values.get_mut(value) {
            Some(count) => *count += by,
            None => _ = values.insert(value.into(), by),
        }
        if values.get(value) == Some(&0) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn get(&self, key: &str, value: &str) -> i64 {
        self.0.get(key).and_then(|values| values.get(value)).copied().unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
