//! Flags of what is measured, for both API server commands.

use anyhow::{Context as _, Result, ensure};
use component::metrics::Limits;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Upstream's flags.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct MetricFlags {
    /// Fully qualified names of metrics that are not to be measured, comma separated.
    #[arg(long, value_delimiter = ',')]
    disabled_metrics: Vec<String>,
    /// The map from metric-label to value allow-list of this label. The key's format is <MetricName>,<LabelName>. The value's
    /// format is <allowed_value>,<allowed_value>... A single pair stands as it is, several in double quotes each:
    /// '"metric1,label1=v1,v2","metric2,label2=v1"'; may be given several times.
    #[arg(long, value_parser = pairs)]
    allow_metric_labels: Vec<BTreeMap<String, String>>,
    /// The path to the manifest file that contains the allow-list mapping, a map from "<MetricName>,<LabelName>" to
    /// "<allowed_value>,<allowed_value>...".
    #[arg(long)]
    allow_metric_labels_manifest: Option<PathBuf>,
}

impl MetricFlags {
    pub(crate) fn limits(&self) -> Result<Limits> {
        let disabled: &[String] = match self.disabled_metrics.as_slice() {
            [nothing] if nothing.is_empty() => &[],
            names => names,
        };
        let limits = Limits::default().disable(disabled).map_err(anyhow::Error::msg)?;
        let Some(path) = &self.allow_metric_labels_manifest else {
            let lists = self.allow_metric_labels.iter().flatten();
            let lists = lists.map(|(key, values)| (key.clone(), values.clone())).collect();
            return limits
                .allow(&lists)
                .map_err(|why| anyhow::anyhow!("metrics.allowListMapping: Invalid value: {why}"));
        };
        ensure!(
            self.allow_metric_labels.is_empty(),
            "metrics: Invalid value: cannot specify both allowListMapping and allowListMappingManifest"
        );
        let wrong = || format!("metrics.allowListMappingManifest: Invalid value: {:?}", path.display());
        let text = std::fs::read_to_string(path)
            .context("failed to read allow list manifest")
            .with_context(wrong)?;
        let lists = serde_saphyr::from_str(&text)
            .context("failed to parse allow list manifest")
            .with_context(wrong)?;
        let allowed = limits.allow(&lists).map_err(anyhow::Error::msg);
        allowed.context("invalid allow list mapping in manifest").with_context(wrong)
    }
}

/// Pairs as pflag reads them: one as it stands, several as a line of CSV.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let fields = match text.matches('=').count() {
        0 => return Err(format!("{text} must be formatted as key=value")),
        1 => vec![text.trim_matches('"').to_owned()],
        _ => fields(text)?,
    };
    let pair = |field: &String| {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("{field} must be formatted as key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    fields.iter().map(pair).collect()
}

/// The fields of a line of CSV, which stand in double quotes where commas are in them.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err("bare \" in non-quoted field".into());
                }
                (field.to_owned(), after)
            }
            Some(quoted) => {
                let (mut field, mut quoted) = (String::new(), quoted);
                loop {
                    let (before, after) =
                        quoted.split_once('"').ok_or("extraneous or missing \" in quoted-field")?;
                    field.push_str(before);
                    // Two quotes stand for one.
                    match after.strip_prefix('"') {
                        Some(after) => {
                            field.push('"');
                            quoted = after;
                        }
                        None => break (field, after),
                    }
                }
            }
        };
        fields.push(field);
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.is_empty() => return Ok(fields),
            None => return Err("extraneous or missing \" in quoted-field".into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use expect_test::{Expect, expect};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: MetricFlags,
    }

    fn check(words: &[&str], wanted: Expect) {
        let parsed = Command::try_parse_from(std::iter::once(&"tiphys").chain(words));
        let said = match parsed {
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
            Ok(command) => match command.flags.limits() {
                Err(error) => format!("{error:#}"),
                Ok(limits) => format!("{limits:?}"),
            },
        };
        wanted.assert_eq(&said);
    }

    #[test]
    fn flags_are_read_as_upstream_reads_them() {
        check(&[], expect!["Limits { disabled: {}, allowed: {} }"]);
        check(&["--disabled-metrics="], expect!["Limits { disabled: {}, allowed: {} }"]);
        check(
            &["--disabled-metrics=a,b:c", "--disabled-metrics=d"],
            expect![[r#"Limits { disabled: {"a", "b:c", "d"}, allowed: {} }"#]],
        );
        check(
            &["--disabled-metrics=a,b.c"],
            expect![[
                r#"metrics.disabledMetrics: Invalid value: ["a", "b.c"]: must be fully qualified metric names matching "^[a-zA-Z_:][a-zA-Z0-9_:]*$", got "b.c""#
            ]],
        );
        check(
            &["--allow-metric-labels=m,l=a,b"],
            expect![[r#"Limits { disabled: {}, allowed: {"m": {"l": {"a", "b"}}} }"#]],
        );
        check(
            &[r#"--allow-metric-labels="m,l=a,b""#],
            expect![[r#"Limits { disabled: {}, allowed: {"m": {"l": {"a", "b"}}} }"#]],
        );
        check(
            &[r#"--allow-metric-labels="m,l=a,b","n,k=""c""""#, "--allow-metric-labels=n,l=d"],
            expect![[
                r#"Limits { disabled: {}, allowed: {"m": {"l": {"a", "b"}}, "n": {"k": {"\"c\""}, "l": {"d"}}} }"#
            ]],
        );
        check(
            &["--allow-metric-labels=m,l=a,n,l=b"],
            expect![
                "error: invalid value 'm,l=a,n,l=b' for '--allow-metric-labels <ALLOW_METRIC_LABELS>': m must be formatted as key=value"
            ],
        );
        check(
            &[r#"--allow-metric-labels="m,l=a","n,l=b"#],
            expect![[
                r#"error: invalid value '"m,l=a","n,l=b' for '--allow-metric-labels <ALLOW_METRIC_LABELS>': extraneous or missing " in quoted-field"#
            ]],
        );
        check(
            &["--allow-metric-labels=m"],
            expect![
                "error: invalid value 'm' for '--allow-metric-labels <ALLOW_METRIC_LABELS>': m must be formatted as key=value"
            ],
        );
        check(
            &["--allow-metric-labels=m=a"],
            expect![[
                r#"metrics.allowListMapping: Invalid value: must have keys with format `metricName,labelName` where metricName matches "[a-zA-Z_:][a-zA-Z0-9_:]*" and labelName matches "[a-zA-Z_][a-zA-Z0-9_]*""#
            ]],
        );
        check(
            &["--allow-metric-labels=m,l=a", "--allow-metric-labels-manifest=/a"],
            expect![
                "metrics: Invalid value: cannot specify both allowListMapping and allowListMappingManifest"
            ],
        );
    }

    #[test]
    fn manifests_are_flat() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("manifest");
        let check = |text: &str, wanted: Expect| {
            std::fs::write(&file, text).unwrap();
            let flag = format!("--allow-metric-labels-manifest={}", file.display());
            let command = Command::try_parse_from(["tiphys", flag.as_str()]).unwrap();
            let said = match command.flags.limits() {
                Err(error) => {
                    // What follows shows the place in the file.
                    let text = format!("{error:#}").replace(file.to_str().unwrap(), "FILE");
                    text.lines().next().unwrap().to_owned()
                }
                Ok(limits) => format!("{limits:?}"),
            };
            wanted.assert_eq(&said);
        };
        check(
            "\"m,l\": a,b\nn,l: \"\"\n",
            expect![[r#"Limits { disabled: {}, allowed: {"m": {"l": {"a", "b"}}, "n": {"l": {""}}} }"#]],
        );
        check(
            "m: a\n",
            expect![[
                r#"metrics.allowListMappingManifest: Invalid value: "FILE": invalid allow list mapping in manifest: must have keys with format `metricName,labelName` where metricName matches "[a-zA-Z_:][a-zA-Z0-9_:]*" and labelName matches "[a-zA-Z_][a-zA-Z0-9_]*""#
            ]],
        );
        // As the flag's help upstream has it, and its code does not.
        check(
            "allowListMapping:\n  m,l: a\n",
            expect![[
                r#"metrics.allowListMappingManifest: Invalid value: "FILE": failed to parse allow list manifest: error: line 2 column 3: expected string scalar"#
            ]],
        );
    }
}
