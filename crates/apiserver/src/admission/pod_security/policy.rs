//! Levels, versions, and what a namespace's labels ask.

use apimachinery::value::Value;
use std::fmt;

/// How much is allowed, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

/// The minor version whose standards apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Version {
    Minor(u32),
    #[default]
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let canonical = minor == "0" || !minor.starts_with('0') && !minor.starts_with('+');
        minor.parse().ok().filter(|_| canonical).map(Version::Minor)
    }

    /// Whether the standards of this version are those of `minor` or of a later one.
    pub(super) fn is_at_least(self, minor: u32) -> bool {
        match self {
            Version::Latest => true,
            Version::Minor(own) => own >= minor,
        }
    }
}

/// A level of a version: `restricted:latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.name())?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

/// What a namespace asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

const PREFIX: &str = "pod-security.kubernetes.io/";

pub(super) const LEVELS: &str = "must be one of privileged, baseline, restricted";
pub(super) const VERSIONS: &str = "must be \"latest\" or \"v1.x\"";

impl Policy {
    /// The policy of a namespace's labels, and what is wrong with them; what no label says is the default's. A label that
    /// cannot be read enforces the strictest level, and warns of nothing.
    pub(super) fn of(labels: &Value, default: Policy) -> (Self, Vec<String>) {
        let mut policy = default;
        let mut errors = Vec::new();
        let label = |name: &str| labels[format!("{PREFIX}{name}")].as_str();
        let mut wrong = |name: &str, text: &str, why: &str| {
            errors.push(format!("metadata.labels[{PREFIX}{name}]: Invalid value: {text:?}: {why}"));
        };
        let mut enforced = false;
        if let Some(text) = label("enforce") {
            enforced = Level::parse(text).is_some();
            policy.enforce.level = Level::parse(text).unwrap_or(Level::Restricted);
            if !enforced {
                wrong("enforce", text, LEVELS);
            }
        }
        if let Some(text) = label("audit") {
            policy.audit.level = Level::parse(text).unwrap_or_default();
            if Level::parse(text).is_none() {
                wrong("audit", text, LEVELS);
            }
        }
        if let Some(text) = label("warn") {
            policy.warn.level = Level::parse(text).unwrap_or_default();
            if Level::parse(text).is_none() {
                wrong("warn", text, LEVELS);
            }
        }
        for name in ["enforce-version", "audit-version", "warn-version"] {
            let Some(text) = label(name) else { continue };
            let version = Version::parse(text);
            if version.is_none() {
                wrong(name, text, VERSIONS);
            }
            match name {
                "enforce-version" => policy.enforce.version = version.unwrap_or_default(),
                "audit-version" => policy.audit.version = version.unwrap_or_default(),
                _ => policy.warn.version = version.unwrap_or_default(),
            }
        }
        // Who enforces more than is warned of is warned of what is enforced.
        if label("warn").is_none() && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// Whether nothing is refused, told or warned of.
    pub(super) fn is_fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|at| at.level == Level::Privileged)
    }

    /// Whether two policies come to the same.
    fn is_equivalent(&self, other: &Policy) -> bool {
        let same = |a: LevelVersion, b: LevelVersion| {
            a == b || a.level == Level::Privileged && b.level == Level::Privileged
        };
        same(self.enforce, other.enforce) && same(self.audit, other.audit) && same(self.warn, other.warn)
    }

    /// What is said of the labels of a namespace that is exempt: that nobody heeds them, if they ask for anything.
    pub(super) fn unheeded(&self, namespace: &str, labels: &Value, default: &Policy) -> Option<String> {
        if self.is_fully_privileged() || self.is_equivalent(default) {
            return None;
        }
        let modes = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)];
        let labelled = |mode: &str| {
            [mode.to_owned(), format!("{mode}-version")]
                .iter()
                .any(|name| labels.get(format!("{PREFIX}{name}")).is_some())
        };
        let said: Vec<String> = modes
            .iter()
            .filter(|(mode, at)| at.level != Level::Privileged && labelled(mode))
            .map(|(mode, at)| format!("{mode}={at}"))
            .collect();
        let said = said.join(", ");
        Some(format!(
            "namespace {namespace:?} is exempt from Pod Security, and the policy ({said}) will be ignored"
        ))
    }
}
