//! Logs to stderr: klog's text format (`I1122 23:52:21.123456    4711 file.rs:12] "message" key="value"`) or JSON as
//! `--logging-format=json` writes it. `-v` chooses how much, as people know it from upstream.

use std::fmt::{self, Write as _};

use jiff::Zoned;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What to log and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub format: Format,
    /// `-v`: up to 3 is normal, 4 and 5 debug, from 6 on everything of ours, from 9 on of everybody.
    pub verbosity: u8,
    /// Instead of `verbosity`: tracing's own filter language (`kubelet=debug,info`).
    pub filter: Option<String>,
}

/// Libraries that say much at debug and trace, heard only from `-v=9` on.
const LOUD: &[&str] = &[
    "hyper",
    "hyper_util",
    "h2",
    "rustls",
    "tungstenite",
    "tokio_tungstenite",
    "tower",
    "netlink_proto",
    "rtnetlink",
    "hickory_proto",
    "tonic",
    "mio",
];

/// The filter of a verbosity.
fn directives(verbosity: u8) -> String {
    let level = match verbosity {
        0..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    let mut filter = level.to_owned();
    if (4..9).contains(&verbosity) {
        LOUD.iter().for_each(|library| {
            let _ = write!(filter, ",{library}=info");
        });
    }
    filter
}

/// Starts logging; to be called once, early in `main`. An error means a wrong filter, or that it was called before.
pub fn init(options: &Options) -> Result<(), String> {
    let filter = options.filter.clone().unwrap_or_else(|| directives(options.verbosity));
    let filter = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(Formatter { format: options.format })
        .try_init()
        .map_err(|e| e.to_string())
}

struct Formatter {
    format: Format,
}

impl<S, N> FormatEvent<S, N> for Formatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let file = meta.file().map_or("?", |f| f.rsplit('/').next().unwrap_or(f));
        let line = meta.line().unwrap_or(0);
        match self.format {
            Format::Text => text(writer, *meta.level(), &Zoned::now(), file, line, &fields),
            Format::Json => json(writer, *meta.level(), &Zoned::now(), file, line, fields),
        }
    }
}

fn text(
    mut out: Writer<'_>,
    level: Level,
    now: &Zoned,
    file: &str,
    line: u32,
    fields: &Fields,
) -> fmt::Result {
    let severity = match level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        _ => 'I',
    };
    let process = std::process::id();
    write!(
        out,
        "{severity}{} {process:>7} {file}:{line}] {:?}",
        now.strftime("%m%d %H:%M:%S.%6f"),
        fields.message
    )?;
    for (name, value) in &fields.rest {
        match value {
            serde_json::Value::String(s) => write!(out, " {name}={s:?}")?,
            other => write!(out, " {name}={other}")?,
        }
    }
    writeln!(out)
}

fn json(
    mut out: Writer<'_>,
    level: Level,
    now: &Zoned,
    file: &str,
    line: u32,
    fields: Fields,
) -> fmt::Result {
    let mut object = serde_json::Map::new();
    object.insert("ts".into(), (now.timestamp().as_microsecond() as f64 / 1000.0).into());
    object.insert("caller".into(), format!("{file}:{line}").into());
    object.insert("msg".into(), fields.message.into());
    match level {
        Level::ERROR => {}
        Level::WARN | Level::INFO => {
            object.insert("v".into(), 0.into());
        }
        Level::DEBUG => {
            object.insert("v".into(), 4.into());
        }
        Level::TRACE => {
            object.insert("v".into(), 6.into());
        }
    }
    object.extend(fields.rest);
    writeln!(out, "{}", serde_json::Value::Object(object))
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(String, serde_json::Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        self.rest.push((field.name().to_owned(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" { self.message = value } else { self.put(field, value.into()) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.message = value.into() } else { self.put(field, value.into()) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn lines() {
        let now: jiff::Timestamp = "2026-11-22T23:52:21.123456Z".parse().unwrap();
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        let fields = || Fields {
            message: "pod \"a\" is ready".into(),
            rest: vec![("pod".into(), "default/a".into()), ("count".into(), 3.into())],
        };
        let mut out = String::new();
        text(Writer::new(&mut out), Level::WARN, &now, "mod.rs", 12, &fields()).unwrap();
        let out = out.replace(&format!("{:>7}", std::process::id()), "    PID");
        expect![[r#"
            W1122 23:52:21.123456     PID mod.rs:12] "pod \"a\" is ready" pod="default/a" count=3
        "#]]
        .assert_eq(&out);
        let mut out = String::new();
        json(Writer::new(&mut out), Level::ERROR, &now, "mod.rs", 12, fields()).unwrap();
        let back: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((back["caller"].as_str(), back["count"].as_i64()), (Some("mod.rs:12"), Some(3)));
    }

    #[test]
    fn every_verbosity_is_a_filter() {
        for v in 0..=10 {
            EnvFilter::try_new(directives(v)).unwrap();
        }
    }
}
