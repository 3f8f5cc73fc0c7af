//! Semantic versions.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use apimachinery::quote::quote;

use crate::decls::Row;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed_with};

pub(crate) const ROWS: &[Row] = &[
    Row("semver", "string_to_semver", "(string): kubernetes.Semver", semver),
    Row("semver", "string_bool_to_semver", "(string, bool): kubernetes.Semver", semver),
    Row("isSemver", "is_semver_string", "(string): bool", is_semver),
    Row("isSemver", "is_semver_string_bool", "(string, bool): bool", is_semver),
    Row("isGreaterThan", "semver_is_greater_than", "kubernetes.Semver.(kubernetes.Semver): bool", is_greater),
    Row("isLessThan", "semver_is_less_than", "kubernetes.Semver.(kubernetes.Semver): bool", is_less),
    Row("compareTo", "semver_compare_to", "kubernetes.Semver.(kubernetes.Semver): int", compare),
    Row("major", "semver_major", "kubernetes.Semver.(): int", major),
    Row("minor", "semver_minor", "kubernetes.Semver.(): int", minor),
    Row("patch", "semver_patch", "kubernetes.Semver.(): int", patch),
];

/// A version.
#[derive(Clone, Debug)]
pub struct Semver {
    /// Major, minor, patch.
    pub numbers: [u64; 3],
    pre: Vec<String>,
    build: Vec<String>,
}

impl Semver {
    /// Reads `1.2.3-rc.1+build`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let parts: Vec<_> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = rest.split_once('+').map_or((*rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers = [number(major, "Major")?, number(minor, "Minor")?, number(patch, "Patch")?];
        let pre: Vec<String> = pre.into_iter().flat_map(|pre| pre.split('.')).map(String::from).collect();
        for part in &pre {
            if part.is_empty() {
                return Err("Prerelease is empty".into());
            }
            if is_number(part) && part.len() > 1 && part.starts_with('0') {
                return Err(format!(
                    "Numeric PreRelease version must not contain leading zeroes {}",
                    quote(part)
                ));
            }
            if !is_identifier(part) {
                return Err(format!("Invalid character(s) found in prerelease {}", quote(part)));
            }
        }
        let build: Vec<String> =
            build.into_iter().flat_map(|build| build.split('.')).map(String::from).collect();
        for part in &build {
            if part.is_empty() {
                return Err("Build meta data is empty".into());
            }
            if !is_identifier(part) {
                return Err(format!("Invalid character(s) found in build meta data {}", quote(part)));
            }
        }
        Ok(Self { numbers, pre, build })
    }

    /// Like [`Semver::parse`], after a `v` and zeros in front have gone and missing numbers have become zero.
    pub fn parse_normalized(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text
            .splitn(3, '.')
            .map(|part| {
                let stripped = part.trim_start_matches('0');
                match part.len() {
                    0 | 1 => part.to_owned(),
                    _ if stripped.starts_with(|c: char| c.is_ascii_digit()) => stripped.to_owned(),
                    _ => format!("0{stripped}"),
                }
            })
            .collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("short version cannot contain PreRelease/Build meta data".into());
            }
            parts.resize(3, "0".into());
        }
        Self::parse(&parts.join("."))
    }

    /// By the rules of precedence; build data does not count.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let differing =
                    self.pre.iter().zip(&other.pre).map(|(a, b)| cmp_parts(a, b)).find(|o| o.is_ne());
                differing.unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

fn cmp_parts(a: &str, b: &str) -> Ordering {
    match (is_number(a), is_number(b)) {
        (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn number(text: &str, which: &str) -> Result<u64, String> {
    if !is_number(text) {
        return Err(format!("Invalid character(s) found in {} number {}", which.to_lowercase(), quote(text)));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{which} number must not contain leading zeroes {}", quote(text)));
    }
    text.parse().map_err(|_| {
        let why = if text.is_empty() { "invalid syntax" } else { "value out of range" };
        format!("strconv.ParseUint: parsing {}: {why}", quote(text))
    })
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build.join("."))?;
        }
        Ok(())
    }
}

fn read(args: &[Val<'_>]) -> Result<Result<Semver, String>, Error> {
    let text = args[0].as_str().ok_or(NO_OVERLOAD)?;
    let normalize = match args.get(1) {
        Some(normalize) => normalize.as_bool().ok_or(NO_OVERLOAD)?,
        None => false,
    };
    Ok(if normalize { Semver::parse_normalized(text) } else { Semver::parse(text) })
}

fn semver<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    read(args)?.map(|version| Val::Semver(Arc::new(version))).map_err(failed_with)
}

fn is_semver<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Bool(read(args)?.is_ok()))
}

fn version<'v>(args: &'v [Val<'_>], at: usize) -> Result<&'v Semver, Error> {
    match &args[at] {
        Val::Semver(version) => Ok(version),
        _ => Err(NO_OVERLOAD),
    }
}

fn order(args: &[Val<'_>]) -> Result<Ordering, Error> {
    Ok(version(args, 0)?.precedence(version(args, 1)?))
}

fn is_greater<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    order(args).map(|order| Val::Bool(order.is_gt()))
}

fn is_less<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    order(args).map(|order| Val::Bool(order.is_lt()))
}

fn compare<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    order(args).map(|order| Val::Int(order as i64))
}

fn major<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    version(args, 0).map(|version| Val::Int(version.numbers[0] as i64))
}

fn minor<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    version(args, 0).map(|version| Val::Int(version.numbers[1] as i64))
}

fn patch<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    version(args, 0).map(|version| Val::Int(version.numbers[2] as i64))
}
