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
        let fields = fields.transform(|field, value| {
            let known = match field.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => resource.row.namespaced,
                _ => false,
            };
            if known {
                return Ok((field, value));
            }
            match resource.strategy.selectable(&resource.api_version, &field) {
                Some(name) => Ok((name.into_owned(), value)),
                None => Err(Status::bad_request(unknown_field(resource, &field))),
            }
        })?;
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

/// What upstream says of a field that cannot be selected by: it depends on whether the kind has any of its own.
fn unknown_field(resource: &Served, field: &str) -> String {
    let row = &resource.row;
    if let Some(said) = hooks::unknown_field(&row.group, &row.version, &row.kind, field) {
        return said;
    }
    if resource.custom.is_some() || !resource.strategy.selectable_fields().is_empty() {
        return format!("field label not supported: {field}");
    }
    format!(
        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        apimachinery::quote::quote(field)
    )
}
