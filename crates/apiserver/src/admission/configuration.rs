//! `--admission-control-config-file`: upstream's AdmissionConfiguration, which gives plugins their configuration, in place or
//! in a file of its own. What a plugin's part means is the plugin's to say.

use crate::strict::{self, Shape};
use apimachinery::value::Value;
use std::path::{Path, PathBuf};

/// Where a plugin's part stands.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Here(Value),
    File(PathBuf),
    Nowhere,
}

/// The file: plugins by name; the first of a name counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Configuration(Vec<(String, Source)>);

const KNOWN: [(&str, &str); 2] = [
    ("apiserver.config.k8s.io/v1", "AdmissionConfiguration"),
    ("apiserver.k8s.io/v1alpha1", "AdmissionConfiguration"),
];

const SHAPE: Shape = Shape::Object(&[
    ("apiVersion", Shape::Any),
    ("kind", Shape::Any),
    (
        "plugins",
        Shape::List(&Shape::Object(&[
            ("name", Shape::Any),
            ("path", Shape::Any),
            ("configuration", Shape::Any),
        ])),
    ),
]);

/// Plugins that may have the whole file to themselves, from before there was an AdmissionConfiguration, and what tells so.
const LEGACY: [(&str, &str); 2] =
    [("ImagePolicyWebhook", "imagePolicy"), ("PodNodeSelector", "podNodeSelectorPluginConfig")];

fn is_legacy(text: &str) -> bool {
    let Ok(tree) = schema::decode::free_yaml(text, schema::decode::FieldValidation::Ignore) else {
        return false;
    };
    tree.value["kind"] != "AdmissionConfiguration"
        && LEGACY.iter().any(|(_, member)| tree.value.get(member).is_some())
}

fn source(plugin: &Value, base: &Path) -> Source {
    match (&plugin["configuration"], plugin["path"].as_str().unwrap_or_default()) {
        (Value::Null, "") => Source::Nowhere,
        (Value::Null, path) => Source::File(base.join(path)),
        (configuration, _) => Source::Here(configuration.clone()),
    }
}

impl Configuration {
    /// Reads the file. Paths in it count from its directory.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("unable to read admission control configuration from {:?} [{error}]", path.display())
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let value = match strict::load_known(text, &KNOWN, &SHAPE) {
            Ok(value) => value,
            Err(_) if is_legacy(text) => {
                let whole = |(plugin, _): (&str, _)| (plugin.to_owned(), Source::File(path.to_owned()));
                return Ok(Configuration(LEGACY.map(whole).into()));
            }
            Err(error) => return Err(error),
        };
        let base = path.parent().unwrap_or(Path::new(""));
        let plugins = value["plugins"].as_array().into_iter().flatten();
        let named =
            |plugin: &Value| (plugin["name"].as_str().unwrap_or_default().to_owned(), source(plugin, base));
        Ok(Configuration(plugins.map(named).collect()))
    }

    /// A plugin's part, as YAML or JSON; none if nothing is said of it.
    pub(super) fn of(&self, plugin: &str) -> Result<Option<String>, String> {
        match self.0.iter().find(|(name, _)| name == plugin) {
            Some((_, Source::Here(value))) => Ok(Some(value.to_string())),
            Some((_, Source::File(path))) => std::fs::read_to_string(path).map(Some).map_err(|error| {
                format!("Couldn't open admission plugin configuration {}: {error}", path.display())
            }),
            Some((_, Source::Nowhere)) | None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Configuration, String> {
        Configuration::parse(text, Path::new("/etc/kubernetes/admission.yaml"))
    }

    #[test]
    fn parts_stand_in_place_or_in_a_file() {
        let read = parse(
            "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- {name: PodSecurity, configuration: {kind: A}, path: unread.yaml}
- {name: ResourceQuota, path: quota.yaml}
- {name: EventRateLimit, path: /etc/limits.yaml}
- {name: Priority}
- {name: PodSecurity, path: late.yaml}
",
        )
        .unwrap();
        let file = |path: &str| Source::File(path.into());
        let wanted = [
            ("PodSecurity", Source::Here(apimachinery::json!({"kind": "A"}))),
            ("ResourceQuota", file("/etc/kubernetes/quota.yaml")),
            ("EventRateLimit", file("/etc/limits.yaml")),
            ("Priority", Source::Nowhere),
            ("PodSecurity", file("/etc/kubernetes/late.yaml")),
        ];
        assert_eq!(read, Configuration(wanted.map(|(name, source)| (name.to_owned(), source)).into()));
        assert_eq!(read.of("PodSecurity").unwrap().as_deref(), Some("{\"kind\":\"A\"}"));
        assert_eq!(read.of("Priority"), Ok(None));
        assert!(read.of("EventRateLimit").unwrap_err().starts_with("Couldn't open admission plugin"));
    }

    #[test]
    fn files_from_before_are_one_plugins_own() {
        let own = |text: &str| parse(text).unwrap().0;
        let whole =
            LEGACY.map(|(name, _)| (name.to_owned(), Source::File("/etc/kubernetes/admission.yaml".into())));
        assert_eq!(own("imagePolicy: {kubeConfigFile: a}"), whole);
        assert_eq!(own("podNodeSelectorPluginConfig: {a: b=c}"), whole);
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused = |text: &str| parse(text).unwrap_err();
        assert_eq!(refused("a: b"), "Object 'Kind' is missing in '{\"a\":\"b\"}'");
        assert_eq!(
            refused("apiVersion: v1\nkind: AdmissionConfiguration"),
            "no kind \"AdmissionConfiguration\" is registered for version \"v1\""
        );
        assert_eq!(
            refused("apiVersion: apiserver.k8s.io/v1alpha1\nkind: AdmissionConfiguration\nimagePolicy: {}"),
            "strict decoding error: unknown field \"imagePolicy\""
        );
    }
}
