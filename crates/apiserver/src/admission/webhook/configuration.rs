//! The plugins' configuration: a kubeconfig, whose users are what this server shows to the webhooks of which hosts.

use crate::admission::roster::Fault;
use crate::caller::Caller;
use crate::strict::{self, Shape};
use apimachinery::field::{Error, Path};
use pki::kubeconfig::Kubeconfig;
use std::collections::BTreeMap;
use std::sync::Arc;

const KNOWN: [(&str, &str); 1] = [("apiserver.config.k8s.io/v1", "WebhookAdmissionConfiguration")];

const SHAPE: Shape = Shape::Object(&[
    ("apiVersion", Shape::Any),
    ("kind", Shape::Any),
    ("kubeConfigFile", Shape::Any),
    ("staticManifestsDir", Shape::Any),
]);

/// Users by the hosts that they are for; the default shows nothing to anybody.
#[derive(Debug, Default)]
pub(super) struct Callers {
    named: BTreeMap<String, Arc<Caller>>,
    /// The user of the current context.
    current: Option<Arc<Caller>>,
}

impl Callers {
    /// What a configuration's kubeconfig says.
    pub(super) fn read(text: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = text else { return Ok(Callers::default()) };
        let value = strict::load_known(text, &KNOWN, &SHAPE)?;
        let member = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let file = member("kubeConfigFile");
        if !file.is_empty() && !file.starts_with('/') {
            let path = Path::new("kubeConfigFile");
            return Err(Error::invalid(&path, file, "must be an absolute file path").to_string().into());
        }
        // Its gate, an alpha, is not served.
        if !member("staticManifestsDir").is_empty() {
            let why = "staticManifestsDir requires the ManifestBasedAdmissionControlConfig feature gate to be enabled";
            return Err(Error::forbidden(&Path::new("staticManifestsDir"), why).to_string().into());
        }
        if file.is_empty() {
            return Ok(Callers::default());
        }
        let kubeconfig = Kubeconfig::load(file.as_ref()).map_err(|error| error.to_string())?;
        Ok(Callers::of(&kubeconfig)?)
    }

    fn of(kubeconfig: &Kubeconfig) -> Result<Self, String> {
        let mut named = BTreeMap::new();
        for user in &kubeconfig.users {
            named.insert(user.name.clone(), Arc::new(Caller::new(&user.name, &user.user)?));
        }
        let context = kubeconfig.contexts.iter().find(|c| c.name == kubeconfig.current_context);
        let current = context.and_then(|context| named.get(&context.context.user)).cloned();
        Ok(Callers { named, current })
    }

    /// Who calls a host and port: the user of that name, exact or with a star for its first labels, with or without the port
    /// 443; else the user `*`, else that of the current context.
    pub(super) fn of_target(&self, target: &str) -> Option<&Arc<Caller>> {
        self.named_for(target)
            .or_else(|| self.named_for(target.strip_suffix(":443")?.trim_matches(['[', ']'])))
            .or_else(|| self.named.get("*"))
            .or(self.current.as_ref())
    }

    fn named_for(&self, target: &str) -> Option<&Arc<Caller>> {
        let domains = target.match_indices('.').map(|(at, _)| format!("*{}", &target[at..]));
        self.named.get(target).or_else(|| domains.into_iter().find_map(|domain| self.named.get(&domain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::kubeconfig::{Context, NamedContext, NamedUser, User};

    fn callers(names: &[&str], current: &str) -> Callers {
        let user = |name: &&str| NamedUser { name: (*name).to_owned(), user: User::default() };
        let context = Context { user: current.to_owned(), ..Context::default() };
        let kubeconfig = Kubeconfig {
            users: names.iter().map(user).collect(),
            contexts: vec![NamedContext { name: "here".into(), context }],
            current_context: "here".into(),
            ..Kubeconfig::default()
        };
        Callers::of(&kubeconfig).unwrap()
    }

    #[test]
    fn the_nearest_name_counts() {
        let check = |names: &[&str], target: &str, wanted: Option<&str>| {
            let callers = callers(names, "somebody");
            let found = callers.of_target(target).map(|caller| caller.name.as_str());
            assert_eq!(found, wanted, "{names:?} {target}");
        };
        check(&["a.b.svc:443", "*.b.svc:443"], "a.b.svc:443", Some("a.b.svc:443"));
        check(&["*.svc:443", "*.b.svc:443"], "a.b.svc:443", Some("*.b.svc:443"));
        check(&["*.svc", "*"], "a.b.svc:443", Some("*.svc"));
        check(&["*.svc", "*"], "a.b.svc:8443", Some("*"));
        check(&["::1", "*"], "[::1]:443", Some("::1"));
        check(&["somebody"], "a.b.svc:8443", Some("somebody"));
        check(&["nobody"], "a.b.svc:8443", None);
    }

    #[test]
    fn what_a_configuration_may_say() {
        let refused = |member: &str| {
            let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\n";
            match Callers::read(Some(&format!("{head}{member}"))).unwrap_err() {
                Fault::Configuration(why) | Fault::Initialization(why) => why,
            }
        };
        assert_eq!(
            refused("kubeConfigFile: a/b"),
            "kubeConfigFile: Invalid value: \"a/b\": must be an absolute file path"
        );
        assert_eq!(
            refused("staticManifestsDir: /a"),
            "staticManifestsDir: Forbidden: staticManifestsDir requires the ManifestBasedAdmissionControlConfig feature gate to be enabled"
        );
        assert_eq!(refused("kubeconfig: /a"), "strict decoding error: unknown field \"kubeconfig\"");
    }
}
