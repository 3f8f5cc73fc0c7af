//! The Prometheus text format, version 0.0.4, byte for byte as Go's client writes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::limits::{Limits, UNEXPECTED};
use super::value::{Counter, Snapshot};

/// What to answer a scrape with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Collects families; they come out sorted by name.
#[derive(Default)]
pub struct Encoder {
    families: BTreeMap<String, String>,
    limits: Limits,
    /// Families with labels whose values are limited, until all of theirs are there.
    limited: BTreeMap<String, Limited>,
    /// How often a label was given a value that it may not have.
    unexpected: Counter,
}

/// The sums of a family whose labels may not have every value.
struct Limited {
    help: String,
    kind: String,
    labels: Vec<String>,
    allowed: Vec<Option<BTreeSet<String>>>,
    sums: BTreeMap<Vec<String>, f64>,
    unexpected: Counter,
}

impl Limited {
    /// What differs in unexpected values alone is one.
    fn add<S: AsRef<str>>(&mut self, values: &[S], value: f64) {
        let values = values.iter().zip(&self.allowed).map(|(value, allowed)| {
            let value = value.as_ref();
            if allowed.as_ref().is_none_or(|allowed| allowed.contains(value)) {
                return value.to_owned();
            }
            self.unexpected.inc();
            UNEXPECTED.to_owned()
        });
        *self.sums.entry(values.collect()).or_default() += value;
    }
}

impl Encoder {
    /// From now on families have no other values than they may have.
    pub(super) fn limited(self, limits: &Limits, unexpected: &Counter) -> Self {
        Encoder { limits: limits.clone(), unexpected: unexpected.clone(), ..self }
    }

    /// Begins a family. `labels` are in the order of the values that follow.
    pub fn family(&mut self, name: &str, help: &str, kind: &str, labels: &[String]) -> FamilyEncoder<'_> {
        let names: Vec<&str> = labels.iter().map(String::as_str).collect();
        let limited = self.limits.of(name, &names).map(|allowed| {
            self.limited.entry(name.to_owned()).or_insert_with(|| Limited {
                help: help.to_owned(),
                kind: kind.to_owned(),
                labels: labels.to_vec(),
                allowed,
                sums: BTreeMap::new(),
                unexpected: self.unexpected.clone(),
            })
        });
        FamilyEncoder { limited, ..Self::plain(&mut self.families, name, help, kind, labels) }
    }

    fn plain<'a>(
        families: &'a mut BTreeMap<String, String>,
        name: &str,
        help: &str,
        kind: &str,
        labels: &[String],
    ) -> FamilyEncoder<'a> {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by(|a, b| labels[*a].cmp(&labels[*b]));
        let head = format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape(help, false));
        FamilyEncoder {
            out: families.entry(name.to_owned()).or_default(),
            head,
            name: name.to_owned(),
            labels: labels.to_vec(),
            order,
            limited: None,
        }
    }

    /// All values of those families that are limited are there.
    fn settle(&mut self) {
        for (name, limited) in std::mem::take(&mut self.limited) {
            let Limited { help, kind, labels, sums, .. } = limited;
            let mut family = Self::plain(&mut self.families, &name, &help, &kind, &labels);
            sums.iter().for_each(|(values, sum)| family.value(values, *sum));
        }
    }

    /// The families that have values so far, with their help.
    pub(super) fn helps(&self) -> impl Iterator<Item = (&str, &str)> {
        self.families.iter().filter_map(|(name, text)| {
            let help = text.strip_prefix("# HELP ")?.strip_prefix(name.as_str())?.strip_prefix(' ')?;
            Some((name.as_str(), help.lines().next()?))
        })
    }

    /// Leaves out these families; those of them that there were.
    pub(super) fn forget(&mut self, names: &BTreeSet<String>) -> Vec<String> {
        self.settle();
        let there = names.iter().filter(|name| self.families.remove(*name).is_some());
        there.cloned().collect()
    }

    pub(super) fn finish(mut self) -> String {
        self.settle();
        self.families.into_values().collect()
    }
}

/// The values of one family.
pub struct FamilyEncoder<'a> {
    out: &'a mut String,
    head: String,
    name: String,
    labels: Vec<String>,
    order: Vec<usize>,
    limited: Option<&'a mut Limited>,
}

impl FamilyEncoder<'_> {
    pub fn value<S: AsRef<str>>(&mut self, values: &[S], value: f64) {
        if let Some(limited) = &mut self.limited {
            return limited.add(values, value);
        }
        self.line("", values, None, &number(value));
    }

    pub(super) fn histogram<S: AsRef<str>>(&mut self, values: &[S], snapshot: &Snapshot) {
        for (bound, count) in &snapshot.cumulative {
            self.line("_bucket", values, Some(&number(*bound)), &number(*count as f64));
        }
        self.line("_sum", values, None, &number(snapshot.sum));
        self.line("_count", values, None, &number(snapshot.count as f64));
    }

    fn line<S: AsRef<str>>(&mut self, suffix: &str, values: &[S], le: Option<&str>, value: &str) {
        if !self.head.is_empty() && self.out.is_empty() {
            self.out.push_str(&self.head);
        }
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        for &i in &self.order {
            let label = values.get(i).map(AsRef::as_ref).unwrap_or_default();
            let _ = write!(self.out, "{separator}{}=\"{}\"", self.labels[i], escape(label, true));
            separator = ',';
        }
        if let Some(le) = le {
            let _ = write!(self.out, "{separator}le=\"{le}\"");
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

fn escape(s: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out
}

/// As Go's `strconv.AppendFloat(f, 'g', -1, 64)`: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
fn number(f: f64) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    // `{:e}` gives the shortest digits that read back the same: d[.ddd]e[-]x.
    let scientific = format!("{f:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{f}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers() {
        let check = |f: f64, want: &str| assert_eq!(super::number(f), want);
        check(0.0, "0");
        check(-1.0, "-1");
        check(123_456.0, "123456");
        check(1e6, "1e+06");
        check(12_345_678.5, "1.23456785e+07");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(1.5e300, "1.5e+300");
        check(f64::NEG_INFINITY, "-Inf");
    }
}
