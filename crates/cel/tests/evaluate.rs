//! Expressions and what they come to. Each file of `testdata` holds expressions, one a line, and beneath each,
//! indented, its value or error and what it cost. `UPDATE_EXPECT=1` writes the files anew.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::PathBuf;

use apimachinery::json;
use apimachinery::value::Value;
use cel::env::Environment;
use cel::types::Type;
use cel::value::Val;
use expect_test::expect_file;

fn data() -> Value {
    json!({
        "name": "web-1",
        "replicas": 3,
        "ratio": 0.5,
        "labels": {"app": "web", "tier": "front"},
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "words": ["a", "b", "a"],
        "nothing": null,
    })
}

fn check(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/testdata/{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let env = Environment::kubernetes().variable("o", Type::Dyn).bindings();
    let data = data();
    let mut shown = String::new();
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        let result = match env.compile(line) {
            Err(issues) => issues.to_string(),
            Ok(checked) => match checked.program() {
                Err(wrong) => format!("no program: {wrong}"),
                Ok(program) => {
                    let outcome = program.evaluate(&[("o", Val::from(&data))], 1_000_000);
                    let value = match outcome.result {
                        Ok(value) => value.to_string(),
                        Err(error) => format!("error: {error}"),
                    };
                    format!("{value} [{}]", outcome.cost)
                }
            },
        };
        writeln!(shown, "{line}\n    {}", result.replace('\n', "\n    ")).unwrap();
    }
    expect_file![path].assert_eq(&shown);
}

#[test]
fn arithmetic() {
    check("arithmetic");
}

#[test]
fn logic() {
    check("logic");
}

#[test]
fn fields() {
    check("fields");
}

#[test]
fn macros() {
    check("macros");
}

#[test]
fn conversions_and_times() {
    check("conversions_and_times");
}

#[test]
fn strings() {
    check("strings");
}

#[test]
fn lists_and_sets() {
    check("lists_and_sets");
}

#[test]
fn kubernetes() {
    check("kubernetes");
}

#[test]
fn mistakes() {
    check("mistakes");
}

/// A wide selection, each result compared with what a kube-apiserver v1.36.2 says.
#[test]
fn agreed() {
    check("agreed");
}
