//! Which objects a request wants: namespace, name, label and field selectors.

use super::project::projected;
use crate::resources::Served;
use apimachinery::fields;
use apimachinery::labels;
use apimachinery::status::Status;
use store::Entry;

/// Namespace, name, label and field selectors of a list or watch.
#[derive(Debug, Clone)]
pub struct Selection {
    /// What names begin with: `namespace/` or nothing.
    pub scope: String,
    /// The one name (below the scope) that can match.
    pub name: Option<String>,
    pub labels: labels::Selector,
    pub fields: fields::Selector,
    everything: bool,
}

impl Selection {
    /// Reads the selectors of a request on a resource; unknown fields are refused as upstream does.
    pub fn parse(
        resource: &Served,
        namespace: &str,
        label_selector: &str,
        field_selector: &str,
    ) -> Result<Self, Status> {
        let labels =
            labels::Selector::parse(label_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        let fields =
            fields::Selector::parse(field_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        for term in fields.requirements() {
            let known = matches!(term.field.as_str(), "metadata.name")
                || term.field == "metadata.namespace" && resource.row.namespaced
                || resource.strategy.is_selectable(&term.field);
            if !known {
                return Err(Status::bad_request(format!(
                    "Unable to find \"{}, Resource={}\" that match label selector {label_selector:?}, field selector {field_selector:?}: field label not supported: {}",
                    resource.api_version.split('/').next_back().map_or_else(String::new, |v| {
                        if resource.row.group.is_empty() {
                            format!("/{v}")
                        } else {
                            format!("{}/{v}", resource.row.group)
                        }
                    }),
                    resource.row.resource,
                    term.field
                )));
            }
        }
        let exact = |field: &str| fields.requires_exact_match(field).map(str::to_owned);
        let mut scope = if resource.row.namespaced && !namespace.is_empty() {
            format!("{namespace}/")
        } else {
            String::new()
        };
        if scope.is_empty()
            && resource.row.namespaced
            && let Some(namespace) = exact("metadata.namespace").filter(|n| !n.is_empty())
        {
            scope = format!("{namespace}/");
        }
        let everything = labels.is_empty() && fields.is_empty();
        Ok(Selection { scope, name: exact("metadata.name"), labels, fields, everything })
    }

    /// Whether only the scope matters.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether an entry is wanted.
    pub fn matches(&self, resource: &Served, entry: &Entry) -> bool {
        if !entry.name.starts_with(&self.scope) {
            return false;
        }
        if self.everything {
            return true;
        }
        let (namespace, name) = entry.name.split_once('/').unwrap_or(("", &entry.name));
        if self.name.as_ref().is_some_and(|wanted| wanted != name) {
            return false;
        }
        let projected = projected(resource, entry);
        let field = |wanted: &str| match wanted {
            "metadata.name" => name,
            "metadata.namespace" => namespace,
            other => projected.fields.iter().find(|(n, _)| *n == other).map_or("", |(_, v)| v.as_str()),
        };
        self.labels.matches(&projected.labels) && self.fields.matches(field)
    }
}
