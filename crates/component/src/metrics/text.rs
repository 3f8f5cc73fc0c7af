//! The Prometheus text format, version 0.0.4, byte for byte as Go's client writes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::value::Snapshot;

/// What to answer a scrape with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Collects families; they come out sorted by name.
#[derive(Default)]
pub struct Encoder {
    families: BTreeMap<String, String>,
}

impl Encoder {
    /// Begins a family. `labels` are in the order of the values that follow.
    pub fn family(&mut self, name: &str, help: &str, kind: &str, labels: &[String]) -> FamilyEncoder<'_> {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by(|a, b| labels[*a].cmp(&labels[*b]));
        let head = format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape(help, false));
        FamilyEncoder {
            out: self.families.entry(name.to_owned()).or_default(),
            head,
            name: name.to_owned(),
            labels: labels.to_vec(),
            order,
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
        let there = names.iter().filter(|name| self.families.remove(*name).is_some());
        there.cloned().collect()
    }

    pub(super) fn finish(self) -> String {
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
}

impl FamilyEncoder<'_> {
    pub fn value<S: AsRef<str>>(&mut self, values: &[S], value: f64) {
        self.line("", values, None, &number(value));
    }

    pub(super) fn histogram<S: AsRef<str>>(&mut self, values: &[S], snapshot: &Snapshot) {
        for (bound, count) in &snapshot.cumulative {
            self.line("_bucket", values, Some(&number(*bound)), &count.to_string());
        }
        self.line("_sum", values, None, &number(snapshot.sum));
        self.line("_count", values, None, &snapshot.count.to_string());
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
