//! Reads the options of requests from query strings, as leniently as upstream: unknown parameters are
//! ignored, the first of several values counts, a number that is none is an error.

use std::num::IntErrorKind;

use super::options::*;
use crate::quote::quote;

/// The parameters of a URL, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// A parameter that is no number, in Go's words; becomes a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseInt: parsing {}: {why}", quote(.text))]
pub struct QueryError {
    text: String,
    why: &'static str,
}

impl Query {
    /// From what stands behind the question mark. As in Go, a pair with a semicolon or a broken escape
    /// is left out.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        let decoded = pairs.filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key)?, unescape(value)?))
        });
        Self(decoded.collect())
    }

    /// From pairs that are decoded already.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// All pairs.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.all(name).map(str::to_owned).collect()
    }

    /// Anything but `0` and `false` is true, even nothing.
    fn optional_bool(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A number, if the parameter is there.
    pub fn optional_i64(&self, name: &str) -> Result<Option<i64>, QueryError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| QueryError {
            text: text.to_owned(),
            why: match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            },
        })
    }

    /// Whether a flag such as `watch` is on.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_bool(name).unwrap_or(false)
    }

    /// The options of a list or watch. Selectors are still text: their errors come from
    /// [`crate::labels`] and [`crate::fields`] as they are.
    pub fn list_options(&self) -> Result<ListOptions, QueryError> {
        Ok(ListOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            watch: self.flag("watch"),
            allow_watch_bookmarks: self.flag("allowWatchBookmarks"),
            resource_version: self.text("resourceVersion"),
            resource_version_match: self.text("resourceVersionMatch"),
            timeout_seconds: self.optional_i64("timeoutSeconds")?,
            limit: self.optional_i64("limit")?.unwrap_or(0),
            continue_token: self.text("continue"),
            send_initial_events: self.optional_bool("sendInitialEvents"),
            shard_selector: self.text("shardSelector"),
            ..ListOptions::default()
        })
    }

    /// The options of a get.
    pub fn get_options(&self) -> GetOptions {
        GetOptions { resource_version: self.text("resourceVersion"), ..GetOptions::default() }
    }

    /// The options of a create.
    pub fn create_options(&self) -> CreateOptions {
        CreateOptions {
            dry_run: self.list("dryRun"),
            field_manager: self.text("fieldManager"),
            field_validation: self.text("fieldValidation"),
            ..CreateOptions::default()
        }
    }

    /// The options of an update.
    pub fn update_options(&self) -> UpdateOptions {
        UpdateOptions {
            dry_run: self.list("dryRun"),
            field_manager: self.text("fieldManager"),
            field_validation: self.text("fieldValidation"),
            ..UpdateOptions::default()
        }
    }

    /// The options of a patch or an apply.
    pub fn patch_options(&self) -> PatchOptions {
        PatchOptions {
            dry_run: self.list("dryRun"),
            force: self.optional_bool("force"),
            field_manager: self.text("fieldManager"),
            field_validation: self.text("fieldValidation"),
            ..PatchOptions::default()
        }
    }

    /// The options of a deletion that has no body.
    pub fn delete_options(&self) -> Result<DeleteOptions, QueryError> {
        let grace_period_seconds = self.optional_i64("gracePeriodSeconds")?;
        let present = |name| self.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let preconditions =
            Preconditions { uid: present("uid"), resource_version: present("resourceVersion") };
        Ok(DeleteOptions {
            grace_period_seconds,
            preconditions: (preconditions != Preconditions::default()).then_some(preconditions),
            orphan_dependents: self.optional_bool("orphanDependents"),
            propagation_policy: self.get("propagationPolicy").map(str::to_owned),
            dry_run: self.list("dryRun"),
            ignore_store_read_error_with_cluster_breaking_potential: self
                .optional_bool("ignoreStoreReadErrorWithClusterBreakingPotential"),
            ..DeleteOptions::default()
        })
    }

    /// The options of a table.
    pub fn table_options(&self) -> TableOptions {
        TableOptions { include_object: self.text("includeObject"), ..TableOptions::default() }
    }
}

/// Plus signs are spaces, `%xx` are bytes; none when an escape is broken or the bytes are no text.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                out.push((high * 16 + low) as u8);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_leniently() {
        let query = Query::parse(
            "labelSelector=a%3Db%2Cc+in+(d)&watch=&limit=500&limit=x&allowWatchBookmarks=False&unknown=1&x;y=2&bad=%zz&timeoutSeconds=7&sendInitialEvents=0",
        );
        let options = query.list_options().unwrap();
        assert_eq!(
            serde_json::to_string(&options).unwrap(),
            r#"{"labelSelector":"a=b,c in (d)","watch":true,"timeoutSeconds":7,"limit":500,"sendInitialEvents":false}"#
        );
        let query = Query::parse(
            "gracePeriodSeconds=0&uid=u&resourceVersion=&dryRun=All&dryRun=x&propagationPolicy=",
        );
        assert_eq!(
            serde_json::to_string(&query.delete_options().unwrap()).unwrap(),
            r#"{"gracePeriodSeconds":0,"preconditions":{"uid":"u"},"propagationPolicy":"","dryRun":["All","x"]}"#
        );
        for (raw, want) in [
            ("limit=x", r#"strconv.ParseInt: parsing "x": invalid syntax"#),
            ("limit=", r#"strconv.ParseInt: parsing "": invalid syntax"#),
            (
                "timeoutSeconds=99999999999999999999",
                r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#,
            ),
        ] {
            assert_eq!(Query::parse(raw).list_options().unwrap_err().to_string(), want);
        }
    }
}
