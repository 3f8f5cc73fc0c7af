//! The recorded answers: a file for each story, a line for each answer. An object that is nearly the story's first is
//! written as what differs from it; an answer that was given before, as the name of the request that got it. `zcat` shows
//! them.

use crate::answer::{Answer, Content};
use crate::differ::{apply, changes};
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

#[derive(Serialize, Deserialize)]
struct Line {
    case: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    code: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// The message of an invalid object only joins its causes, and is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    joined: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<Vec<(String, Value)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

const JSON: &str = "application/json";

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pairs/recorded").join(format!("{file}.jsonl.gz"))
}

fn value(answer: &Answer) -> Option<Value> {
    match &answer.body {
        Content::Json(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

pub fn write(file: &str, answers: &[(String, Answer)]) {
    let mut out = String::new();
    let base = answers.first().and_then(|(_, answer)| value(answer));
    for (i, (case, answer)) in answers.iter().enumerate() {
        let mut line = Line {
            case: case.clone(),
            same: answers[..i].iter().find(|(_, a)| a == answer).map(|(name, _)| name.clone()),
            code: 0,
            media: String::new(),
            warnings: Vec::new(),
            joined: false,
            json: None,
            changed: None,
            text: None,
            bytes: None,
        };
        if line.same.is_none() {
            line.code = answer.code;
            let empty = matches!(&answer.body, Content::Text(text) if text.is_empty());
            let told = answer.media != JSON || empty;
            line.media = if told { answer.media.clone() } else { String::new() };
            line.warnings = answer.warnings.clone();
            match &answer.body {
                Content::Text(text) => line.text = Some(text.clone()),
                Content::Bytes(bytes) => line.bytes = Some(STANDARD.encode(bytes)),
                Content::Json(text) => {
                    // What is written in full is compared byte for byte; changes of one field need not be.
                    let changed = match (&base, value(answer)) {
                        (Some(base), Some(value)) if i > 0 && case.contains(" = ") => {
                            Some(changes(base, &value))
                        }
                        _ => None,
                    };
                    line.changed =
                        changed.filter(|c| serde_json::to_string(c).unwrap().len() * 2 < text.len());
                    if let Some(short) = without_message(text) {
                        line.joined = true;
                        line.json = Some(RawValue::from_string(short).unwrap());
                    } else if line.changed.is_none() {
                        line.json = Some(RawValue::from_string(text.clone()).unwrap());
                    }
                }
            }
        }
        out.push_str(&serde_json::to_string(&line).unwrap());
        out.push('\n');
    }
    // Without a time of its own, so that the same answers make the same file.
    let file = std::fs::File::create(path(file)).unwrap();
    let mut packed = GzEncoder::new(file, Compression::best());
    packed.write_all(out.as_bytes()).unwrap();
    packed.finish().unwrap();
}

pub fn read(file: &str) -> Vec<(String, Answer)> {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path(file)) {
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
    }
    let mut answers: Vec<(String, Answer)> = Vec::new();
    let mut base = None;
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        let answer = match line.same {
            Some(same) => answers.iter().find(|(name, _)| *name == same).unwrap().1.clone(),
            None => {
                let body = match (line.json, line.changed, line.text, line.bytes) {
                    (Some(json), ..) if line.joined => Content::Json(with_message(json.get())),
                    (Some(json), ..) => Content::Json(json.get().to_owned()),
                    (_, Some(changed), ..) => {
                        let base: &Value = base.as_ref().unwrap();
                        Content::Json(apply(base, &changed).to_string())
                    }
                    (_, _, Some(text), _) => Content::Text(text),
                    (.., bytes) => Content::Bytes(STANDARD.decode(bytes.unwrap_or_default()).unwrap()),
                };
                // What is empty has no media type.
                let nothing = matches!(&body, Content::Text(text) if text.is_empty());
                let media = if line.media.is_empty() && !nothing { JSON.to_owned() } else { line.media };
                Answer { code: line.code, media, warnings: line.warnings, body }
            }
        };
        if answers.is_empty() {
            base = value(&answer);
        }
        answers.push((line.case, answer));
    }
    answers
}

const BEFORE: &str = r#""status":"Failure","#;

/// What upstream says of an object with these mistakes.
fn message(status: &Value) -> Option<String> {
    let details = &status["details"];
    let causes = details["causes"].as_array()?;
    let mut told: Vec<String> = Vec::new();
    for cause in causes {
        let one = format!("{}: {}", cause["field"].as_str()?, cause["message"].as_str()?);
        if !told.contains(&one) {
            told.push(one);
        }
    }
    let kind = details["kind"].as_str()?;
    let group = details["group"].as_str().map_or(String::new(), |group| format!(".{group}"));
    let name = details["name"].as_str()?;
    let why = if told.len() == 1 { told.remove(0) } else { format!("[{}]", told.join(", ")) };
    Some(format!("{kind}{group} \"{name}\" is invalid: {why}"))
}

/// The text without its message, if that can be made again.
fn without_message(text: &str) -> Option<String> {
    let mut status: Value = serde_json::from_str(text).ok()?;
    if status["reason"] != "Invalid" {
        return None;
    }
    let (before, after) = text.split_once(BEFORE)?;
    let after = after.strip_prefix("\"message\":")?;
    let rest = after.split_once(r#","reason":"Invalid""#)?.1;
    let short = format!(r#"{before}{BEFORE}"reason":"Invalid"{rest}"#);
    status["message"] = Value::Null;
    (with_message(&short) == text).then_some(short)
}

fn with_message(short: &str) -> String {
    let status: Value = serde_json::from_str(short).unwrap();
    let message = message(&status).unwrap_or_default();
    let mut quoted = Vec::new();
    schema::encode::write_value(&mut quoted, &Value::String(message));
    let quoted = String::from_utf8(quoted).unwrap();
    short.replacen(BEFORE, &format!("{BEFORE}\"message\":{quoted},"), 1)
}

/// Cases that are known to be answered otherwise and are still to be mended, as `file<TAB>case`.
pub fn open() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(open_path()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.map(|(file, case)| (file.to_owned(), case.to_owned())).collect()
}

pub fn write_open(open: &[(String, String)]) {
    let lines: Vec<String> = open.iter().map(|(file, case)| format!("{file}\t{case}\n")).collect();
    std::fs::write(open_path(), lines.concat()).unwrap();
}

fn open_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pairs/open.tsv")
}
