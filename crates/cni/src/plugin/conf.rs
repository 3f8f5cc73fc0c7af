//! Configuration lists: found, checked, and cut into what each plugin is fed.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Error, Invocation};

/// A configuration list, kept as it was written: plugins see every key of theirs.
#[derive(Debug, Clone)]
pub struct List(Value);

/// The first valid configuration of a directory, in name order. A single plugin's `.conf` or `.json` is a list of one.
pub(super) fn first(dir: &Path) -> Result<Option<List>, Error> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(None) };
    let mut files: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json"))
        .collect();
    files.sort();
    let mut invalid = None;
    for file in files {
        let bad = |e: String| Error::Conf(file.clone(), e);
        let parsed = std::fs::read(&file)
            .map_err(|e| bad(e.to_string()))
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string())))
            .and_then(|value| List::parse(value).map_err(bad));
        match parsed {
            Ok(list) => return Ok(Some(list)),
            Err(error) => invalid = invalid.or(Some(error)),
        }
    }
    // Files that are all broken mean that somebody wants plugins: falling back in silence would hide it.
    invalid.map_or(Ok(None), Err)
}

impl List {
    fn parse(mut value: Value) -> Result<Self, String> {
        if value.get("plugins").is_none() {
            if !value["type"].is_string() {
                return Err("neither a plugin nor a list of plugins".into());
            }
            value = json!({"cniVersion": value["cniVersion"], "name": value["name"], "plugins": [value]});
        }
        let plugins = value["plugins"].as_array().ok_or("plugins is not a list")?;
        if plugins.is_empty() {
            return Err("no plugins in list".into());
        }
        if !plugins.iter().all(|p| p["type"].as_str().is_some_and(|t| !t.is_empty() && !t.contains('/'))) {
            return Err("a plugin has no type".into());
        }
        if value["name"].as_str().is_none_or(str::is_empty) {
            return Err("no name".into());
        }
        Ok(Self(value))
    }

    /// A list that was valid when it was remembered.
    pub(super) fn of(value: Value) -> Self {
        Self(value)
    }

    pub fn value(&self) -> &Value {
        &self.0
    }

    pub fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// What the list asks for, or the highest of `cniVersions` (1.1.0) that we speak.
    fn version(&self) -> &str {
        let speaks = |v: &&str| parse_version(v).is_some_and(|v| v <= (1, 1, 0));
        let several =
            self.0["cniVersions"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(speaks);
        let best = several.max_by_key(|v| parse_version(v));
        best.or(self.0["cniVersion"].as_str()).unwrap_or("0.1.0")
    }

    pub(super) fn at_least(&self, major: u32, minor: u32) -> bool {
        parse_version(self.version()).is_some_and(|v| v >= (major, minor, 0))
    }

    pub(super) fn plugins(&self) -> &[Value] {
        self.0["plugins"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// One plugin's own keys, with the list's name and version.
    pub(super) fn bare_conf(&self, plugin: &Value) -> Map<String, Value> {
        let mut conf = plugin.as_object().cloned().unwrap_or_default();
        conf.insert("cniVersion".into(), json!(self.version()));
        conf.insert("name".into(), self.0["name"].clone());
        conf
    }

    /// The same with the capabilities it declares filled in, and the result so far.
    pub(super) fn plugin_conf(
        &self,
        plugin: &Value,
        invocation: &Invocation,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut conf = self.bare_conf(plugin);
        let declares = |capability: &str| plugin["capabilities"][capability] == json!(true);
        conf.remove("capabilities");
        if declares("portMappings") && !invocation.port_mappings.is_empty() {
            conf.insert("runtimeConfig".into(), json!({"portMappings": invocation.port_mappings}));
        }
        if let Some(previous) = previous {
            conf.insert("prevResult".into(), previous.clone());
        }
        conf
    }
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|p| p.parse().ok());
    Some((parts.next()??, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
}
