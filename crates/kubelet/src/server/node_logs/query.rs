//! What is asked of the node's logs: pure but for a look whether a file is there. Upstream: `nodeLogQuery`.

use apimachinery::field::{BadValue, Error, ErrorList, Path as Field};
use apimachinery::time::Timestamp;
use linux::path::Root;
use std::path::Path;

const MAX_SERVICES: usize = 4;
const MAX_SERVICE_LENGTH: usize = 256;
const MAX_TAIL: i64 = 100_000;
const FORMATS: [&str; 7] =
    ["cat", "json", "short", "short-iso", "short-iso-precise", "short-precise", "short-unix"];

/// A query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub services: Vec<String>,
    pub files: Vec<String>,
    pub options: Options,
}

/// What of the services' logs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub since_time: Option<Timestamp>,
    pub until_time: Option<Timestamp>,
    pub tail: Option<i64>,
    pub boot: Option<i64>,
    pub pattern: String,
    pub case_sensitive: bool,
    pub since: String,
    pub until: String,
    pub format: String,
}

impl Query {
    /// Reads the parameters that are known.
    pub(super) fn parse(pairs: &[(String, String)]) -> Result<Self, String> {
        let mut errors = ErrorList::default();
        let mut out = Query::default();
        let all =
            |name: &'static str| pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value);
        let first = |name: &'static str| all(name).next().cloned().unwrap_or_default();
        for asked in all("query") {
            // A slash says that it is a file.
            if asked.contains(['/', '\\']) {
                out.files.push(asked.clone());
            } else if !asked.trim().is_empty() {
                out.services.push(asked.clone());
            }
        }
        out.services.extend(all("unit").filter(|unit| !unit.trim().is_empty()).cloned());
        let asked = all("query").chain(all("unit")).next().is_some();
        if asked && out.files.is_empty() && out.services.is_empty() {
            let queries: Vec<&String> = all("query").collect();
            errors.push(Error::invalid(
                &Field::new("unit"),
                BadValue::json(&queries),
                "unit cannot be empty",
            ));
        }
        for (name, to) in
            [("sinceTime", &mut out.options.since_time), ("untilTime", &mut out.options.until_time)]
        {
            let text = first(name);
            match text.parse() {
                Ok(time) => *to = Some(time),
                Err(_) if text.is_empty() => {}
                Err(_) => {
                    errors.push(Error::invalid(&Field::new(name), text.as_str(), "invalid time format"))
                }
            }
        }
        let tail = Some(first("tailLines")).filter(|text| !text.is_empty()).unwrap_or_else(|| first("tail"));
        for (name, text, to) in
            [("boot", first("boot"), &mut out.options.boot), ("tailLines", tail, &mut out.options.tail)]
        {
            match text.parse() {
                Ok(number) => *to = Some(number),
                Err(_) if text.is_empty() => {}
                Err(_) => {
                    let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                    errors.push(Error::invalid(&Field::new(name), text.as_str(), why));
                }
            }
        }
        let options = &mut out.options;
        options.pattern =
            Some(first("pattern")).filter(|text| !text.is_empty()).unwrap_or_else(|| first("grep"));
        options.case_sensitive =
            !options.pattern.is_empty() && ["1", "t", "true"].contains(&first("case-sensitive").as_str());
        (options.since, options.until, options.format) = (first("since"), first("until"), first("output"));
        match errors.aggregate() {
            None => Ok(out),
            Some(errors) => Err(errors),
        }
    }

    /// Refuses what cannot be answered, or should not be.
    pub(super) fn validate(&self, dir: &Path) -> ErrorList {
        let mut errors = ErrorList::default();
        let query = Field::new("query");
        for service in &self.services {
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
            if service.len() > MAX_SERVICE_LENGTH {
                let why = format!("length must be less than {MAX_SERVICE_LENGTH}");
                errors.push(Error::invalid(&query, service.as_str(), why));
            } else if !service.chars().all(known) {
                errors.push(Error::invalid(
                    &query,
                    service.as_str(),
                    "input contains unsupported characters",
                ));
            }
        }
        if self.services.len() > MAX_SERVICES {
            errors.push(Error::too_many(&query, Some(self.services.len()), MAX_SERVICES));
        }
        let files = || BadValue::json(&self.files);
        match self.files.as_slice() {
            [] => {}
            _ if !self.services.is_empty() => {
                let both = format!("[{}], [{}]", self.files.join(" "), self.services.join(" "));
                errors.push(Error::invalid(&query, both.as_str(), "cannot specify a file and service"));
            }
            [file] if self.options == Options::default() => {
                let relative = file.replace('\\', "/");
                let found =
                    Root::open(dir).and_then(|root| root.handle(Path::new(relative.trim_start_matches('/'))));
                if let Err(error) = found {
                    errors.push(Error::invalid(&query, files(), error.to_string()));
                }
            }
            [_] => errors.push(Error::invalid(&query, files(), "cannot specify file with options")),
            _ => errors.push(Error::invalid(&query, files(), "cannot specify more than one file")),
        }
        self.options.validate(&mut errors);
        errors
    }
}

impl Options {
    fn validate(&self, errors: &mut ErrorList) {
        if let (Some(since), Some(until)) = (self.since_time, self.until_time)
            && since > until
        {
            let shown = until.to_string();
            errors.push(Error::invalid(
                &Field::new("untilTime"),
                shown.as_str(),
                "must be after `sinceTime`",
            ));
        }
        if let Some(boot) = self.boot.filter(|boot| *boot > 0) {
            errors.push(Error::invalid(&Field::new("boot"), boot, "must be less than 1"));
        }
        if let Some(tail) = self.tail.filter(|tail| !(0..=MAX_TAIL).contains(tail)) {
            let why = apimachinery::validation::inclusive_range_error(0, MAX_TAIL);
            errors.push(Error::invalid(&Field::new("tailLines"), tail, why));
        }
        let relative = !self.since.is_empty() || !self.until.is_empty();
        for (name, time) in [("sinceTime", self.since_time), ("untilTime", self.until_time)] {
            if time.is_some() && relative {
                let why = format!("`since or until` and `{name}` cannot be specified");
                errors.push(Error::forbidden(&Field::new(name), why));
            }
        }
        for (name, date) in [("since", &self.since), ("until", &self.until)] {
            if !is_date(date) {
                let why = "date must be a relative time of the form '(+|-)[0-9]+(s|m|h|d)' or a date in 'YYYY-MM-DD HH:MM:SS' form";
                errors.push(Error::invalid(&Field::new(name), date.as_str(), why));
            }
        }
        if !self.format.is_empty() && !FORMATS.contains(&self.format.as_str()) {
            errors.push(Error::not_supported(&Field::new("output"), self.format.as_str(), &FORMATS));
        }
    }
}

/// Nothing, a distance from now, or a day and a time.
fn is_date(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if bare.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(digits) {
        return true;
    }
    let Some((day, time)) = text.split_once(' ') else { return false };
    let numbers = |text: &str, between: char, ranges: [(u32, u32); 3]| {
        let parts: Vec<&str> = text.split(between).collect();
        parts.len() == 3
            && parts.iter().zip(ranges).all(|(part, (least, most))| {
                digits(part) && part.parse().is_ok_and(|number: u32| (least..=most).contains(&number))
            })
    };
    numbers(day, '-', [(0, 9999), (1, 12), (1, 31)]) && numbers(time, ':', [(0, 23), (0, 59), (0, 59)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.log"), "").unwrap();
        let told = match Query::parse(&super::super::super::answer::query(Some(text))) {
            Err(error) => format!("400 {error}"),
            Ok(query) => match query.validate(dir.path()).aggregate() {
                Some(error) => format!("406 {error}"),
                None => format!(
                    "{} {} {}",
                    query.services.join(","),
                    query.files.join(","),
                    super::super::services::arguments(&query, &query.services).join(" ")
                ),
            },
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn queries() {
        check(
            "query=kubelet&unit=sshd&tailLines=5&boot=-1&pattern=a.b",
            expect![
                "kubelet,sshd  --utc --no-pager --pager-end --lines=5 --unit=kubelet --unit=sshd --grep=a.b --case-sensitive=false --boot -1 --output=short-precise"
            ],
        );
        check("query=/a.log", expect![" /a.log --utc --no-pager --output=short-precise"]);
        check(
            "query=kubelet&sinceTime=2026-01-02T03:04:05Z&untilTime=2026-01-03T00:00:00Z&output=cat",
            expect![
                "kubelet  --utc --no-pager --since=2026-01-02 03:04:05 --until=2026-01-03 00:00:00 --unit=kubelet --output=cat"
            ],
        );
        check(
            "unit=x&since=-5m&until=2026-1-2 3:4:5",
            expect!["x  --utc --no-pager --since=-5m --until=2026-1-2 3:4:5 --unit=x --output=short-precise"],
        );
        check("query=%20", expect![[r#"400 unit: Invalid value: [" "]: unit cannot be empty"#]]);
        check(
            "query=x&sinceTime=now&tailLines=many",
            expect![[
                r#"400 [sinceTime: Invalid value: "now": invalid time format, tailLines: Invalid value: "many": strconv.Atoi: parsing "many": invalid syntax]"#
            ]],
        );
        check(
            "query=$(reboot)",
            expect![[r#"406 query: Invalid value: "$(reboot)": input contains unsupported characters"#]],
        );
        check(
            "query=/../etc/shadow",
            expect![[
                r#"406 query: Invalid value: ["/../etc/shadow"]: No such file or directory (os error 2)"#
            ]],
        );
        check(
            "query=/a.log&query=x",
            expect![[r#"406 query: Invalid value: "[/a.log], [x]": cannot specify a file and service"#]],
        );
        check(
            "query=/a.log&tailLines=1",
            expect![[r#"406 query: Invalid value: ["/a.log"]: cannot specify file with options"#]],
        );
        check(
            "query=a&query=b&query=c&query=d&query=e",
            expect!["406 query: Too many: 5: must have at most 4 items"],
        );
        check(
            "query=x&boot=1&tailLines=100001&output=xml&since=tomorrow",
            expect![[
                r#"406 [boot: Invalid value: 1: must be less than 1, tailLines: Invalid value: 100001: must be between 0 and 100000, inclusive, since: Invalid value: "tomorrow": date must be a relative time of the form '(+|-)[0-9]+(s|m|h|d)' or a date in 'YYYY-MM-DD HH:MM:SS' form, output: Unsupported value: "xml": supported values: "cat", "json", "short", "short-iso", "short-iso-precise", "short-precise", "short-unix"]"#
            ]],
        );
        check(
            "query=x&since=1h&sinceTime=2026-01-02T03:04:05Z",
            expect!["406 sinceTime: Forbidden: `since or until` and `sinceTime` cannot be specified"],
        );
    }
}
