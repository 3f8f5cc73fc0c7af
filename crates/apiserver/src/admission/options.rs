//! What flags say of admission: which plugins run, and where their configuration stands.

use super::roster::{ROSTER, Row, Standing};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// See the module. The default is upstream's.
#[derive(Debug, Clone)]
pub struct Options {
    /// Plugins that run beside the default ones (`--enable-admission-plugins`).
    pub enable: Vec<String>,
    /// Default ones that do not (`--disable-admission-plugins`).
    pub disable: Vec<String>,
    /// The only ones that run, where this is not empty (`--admission-control`, deprecated).
    pub only: Vec<String>,
    /// Those that count as default ones here, beyond upstream's.
    pub default_too: &'static [&'static str],
    /// `--admission-control-config-file`.
    pub configuration: Option<PathBuf>,
    /// How long pods stay on a node that is not ready, in seconds.
    pub not_ready_seconds: i64,
    /// How long pods stay on a node that cannot be reached, in seconds.
    pub unreachable_seconds: i64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            enable: Vec::new(),
            disable: Vec::new(),
            only: Vec::new(),
            default_too: &[],
            configuration: None,
            not_ready_seconds: 300,
            unreachable_seconds: 300,
        }
    }
}

fn unknown<'a>(flag: &'a str, names: &'a [String]) -> impl Iterator<Item = String> + 'a {
    let known = |name: &str| names_of_flags().any(|known| known == name);
    names
        .iter()
        .filter(move |name| !known(name))
        .map(move |name| format!("{flag} plugin {name:?} is unknown"))
}

/// The plugins that flags can name, in order.
fn names_of_flags() -> impl Iterator<Item = &'static str> {
    ROSTER.iter().filter(|row| row.standing != Standing::Always).map(|row| row.name)
}

impl Options {
    /// All that is wrong with the names, in upstream's words.
    pub fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let adjusted = !self.enable.is_empty() || !self.disable.is_empty();
        if adjusted && !self.only.is_empty() {
            errors.push(
                "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"
                    .to_owned(),
            );
        }
        errors.extend(unknown("admission-control", &self.only));
        errors.extend(unknown("enable-admission-plugins", &self.enable));
        errors.extend(unknown("disable-admission-plugins", &self.disable));
        let enabled: BTreeSet<&str> = self.enable.iter().map(String::as_str).collect();
        let disabled: BTreeSet<&str> = self.disable.iter().map(String::as_str).collect();
        let both: Vec<&str> = enabled.intersection(&disabled).copied().collect();
        if !both.is_empty() {
            let both = both.join(" ");
            errors.push(format!(
                "[{both}] in enable-admission-plugins and disable-admission-plugins overlapped"
            ));
        }
        errors
    }

    /// Whether a plugin runs.
    pub(super) fn runs(&self, row: &Row) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == row.name);
        let default = row.standing == Standing::On || self.default_too.contains(&row.name);
        match row.standing {
            Standing::Always => true,
            _ if !self.only.is_empty() => named(&self.only),
            _ => named(&self.enable) || default && !named(&self.disable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn flags(only: &str, enable: &str, disable: &str) -> Options {
        Options { only: names(only), enable: names(enable), disable: names(disable), ..Options::default() }
    }

    fn running(options: &Options) -> Vec<&'static str> {
        let rows = ROSTER.iter().filter(|row| row.standing != Standing::Always);
        rows.filter(|row| options.runs(row)).map(|row| row.name).collect()
    }

    #[test]
    fn upstreams_words_for_what_is_wrong() {
        let errors = |only, enable, disable| flags(only, enable, disable).errors().join("; ");
        assert_eq!(errors("", "AlwaysPullImages", "Priority"), "");
        assert_eq!(errors("", "Nobody", ""), "enable-admission-plugins plugin \"Nobody\" is unknown");
        assert_eq!(errors("", "", "RBAC"), "disable-admission-plugins plugin \"RBAC\" is unknown");
        assert_eq!(errors("Nobody", "", ""), "admission-control plugin \"Nobody\" is unknown");
        assert_eq!(
            errors("", "Priority AlwaysPullImages", "AlwaysPullImages Priority"),
            "[AlwaysPullImages Priority] in enable-admission-plugins and disable-admission-plugins overlapped"
        );
        assert_eq!(
            errors("Priority", "", "RuntimeClass"),
            "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"
        );
    }

    #[test]
    fn flags_add_to_the_default_and_take_from_it() {
        let default = running(&Options::default());
        assert!(!default.contains(&"NodeRestriction") && default.contains(&"Priority"), "{default:?}");
        let moved = running(&flags("", "NodeRestriction", "Priority"));
        assert!(moved.contains(&"NodeRestriction") && !moved.contains(&"Priority"), "{moved:?}");
        assert_eq!(moved.len(), default.len());
        let here = Options { default_too: &["NodeRestriction"], ..Options::default() };
        assert!(running(&here).contains(&"NodeRestriction"));
        let not_here = Options { disable: names("NodeRestriction"), ..here };
        assert_eq!(running(&not_here), default);
        assert_eq!(running(&flags("ResourceQuota Priority", "", "")), ["Priority", "ResourceQuota"]);
    }
}
