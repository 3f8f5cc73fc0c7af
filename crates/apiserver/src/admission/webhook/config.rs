//! The configured webhooks, read anew when a configuration changes.

use crate::resources::Served;
use apimachinery::decode::Decode as _;
use apimachinery::labels::Selector;
use apimachinery::meta::LabelSelector;
use apimachinery::value::Value;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// One rule: operations on resources.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    pub resources: Vec<String>,
    pub scope: String,
}

/// One webhook.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub name: String,
    /// The name of the object that it stands in.
    pub configuration: String,
    /// Tells this state of the webhook from others.
    pub key: String,
    pub rules: Vec<Rule>,
    pub namespaces: Selector,
    pub objects: Selector,
    /// Whether it wants to see equivalent versions too.
    pub equivalent: bool,
    pub fails_open: bool,
    pub is_free_of_side_effects: bool,
    pub reinvoke: bool,
    pub timeout: Duration,
    pub review_version: &'static str,
    pub client_config: Value,
    /// Names and expressions.
    pub conditions: Vec<(String, String)>,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A selector as objects have it. One that cannot be read selects nothing.
fn selector(value: &Value) -> Selector {
    let typed = LabelSelector::from_value(value).ok();
    let everything = LabelSelector::default();
    Selector::from_label_selector(typed.as_ref().or(Some(&everything)))
        .or_else(|_| Selector::from_label_selector(None))
        .unwrap_or_else(|_| Selector::new(Vec::new()))
}

impl Hook {
    fn of(value: &Value, configuration: &str, key: String) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let rules = value["rules"].as_array().into_iter().flatten().map(|rule| Rule {
            operations: texts(&rule["operations"]),
            groups: texts(&rule["apiGroups"]),
            versions: texts(&rule["apiVersions"]),
            resources: texts(&rule["resources"]),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        });
        let conditions = value["matchConditions"].as_array().into_iter().flatten();
        let reviews = texts(&value["admissionReviewVersions"]);
        Hook {
            name: text("name").to_owned(),
            configuration: configuration.rsplit('/').next().unwrap_or_default().to_owned(),
            key,
            rules: rules.collect(),
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
            equivalent: text("matchPolicy") != "Exact",
            fails_open: text("failurePolicy") == "Ignore",
            is_free_of_side_effects: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
            timeout: Duration::from_secs(value["timeoutSeconds"].as_u64().unwrap_or(10)),
            review_version: if reviews.first().is_some_and(|v| v == "v1beta1") { "v1beta1" } else { "v1" },
            client_config: value["clientConfig"].clone(),
            conditions: conditions
                .map(|c| {
                    let text = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
                    (text("name"), text("expression"))
                })
                .collect(),
        }
    }
}

type Read = (Vec<(Arc<str>, u64)>, Arc<Vec<Arc<Hook>>>);

/// The webhooks of all configurations of one kind, by the name of their configuration.
pub(super) struct Configs {
    store: Arc<dyn Store>,
    resource: Arc<Served>,
    read: Mutex<Read>,
}

impl Configs {
    pub(super) fn new(store: Arc<dyn Store>, resource: Arc<Served>) -> Self {
        Configs { store, resource, read: Mutex::default() }
    }

    pub(super) fn hooks(&self) -> Arc<Vec<Arc<Hook>>> {
        let snapshot = self.store.snapshot(&self.resource.prefix);
        let mut read = self.read.lock();
        let state = || snapshot.entries.values().map(|e| (&e.name, e.mod_revision.0));
        if !state().eq(read.0.iter().map(|(name, revision)| (name, *revision))) {
            let mut hooks = Vec::new();
            for entry in snapshot.entries.values() {
                let Ok(stored) = crate::registry::decode(&self.resource, entry) else { continue };
                for (i, hook) in stored.value["webhooks"].as_array().into_iter().flatten().enumerate() {
                    let key = format!("{}/{}/{i}", entry.name, entry.mod_revision.0);
                    hooks.push(Arc::new(Hook::of(hook, &entry.name, key)));
                }
            }
            let state = state().map(|(name, revision)| (name.clone(), revision)).collect();
            *read = (state, Arc::new(hooks));
        }
        read.1.clone()
    }
}
