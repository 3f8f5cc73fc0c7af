//! Rules over a typed value, as custom resources have them: `testdata/typed/rules.txt` holds rules for the schema and
//! value beside it, and `results.txt` what each comes to: its value or error, what it cost, and what it may cost.
//! `UPDATE_EXPECT=1` writes the results anew.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::PathBuf;

use apimachinery::value::Value;
use cel::cost::PER_CALL_LIMIT;
use cel::env::Environment;
use cel::schema::Schema;
use cel::value::Val;
use expect_test::expect_file;

#[test]
fn rules() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/typed");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let json = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
    let (schema, value) = (json("schema.json"), json("value.json"));
    let schema = Schema::from_json(&schema, &|_| None);
    let decl = schema.decl().unwrap().named("selfType");
    let env = Environment::kubernetes()
        .declare(&decl)
        .variable("self", decl.celtype.clone())
        .variable("oldSelf", decl.celtype.clone());
    let mut shown = String::new();
    for rule in read("rules.txt").lines() {
        let result = match env.compile(rule) {
            Err(issues) => issues.to_string(),
            Ok(checked) => {
                let estimate = checked.estimate(&*decl);
                match checked.program() {
                    Err(wrong) => format!("no program: {wrong}"),
                    Ok(program) => {
                        let of = Val::typed(&value, &schema).unwrap();
                        let outcome =
                            program.evaluate(&[("self", of.clone()), ("oldSelf", of)], PER_CALL_LIMIT);
                        let came = match outcome.result {
                            Ok(value) => value.to_string(),
                            Err(error) => format!("error: {error}"),
                        };
                        format!("{came} [{} of {}..{}]", outcome.cost, estimate.min, estimate.max)
                    }
                }
            }
        };
        writeln!(shown, "{rule}\n    {}", result.replace('\n', "\n    ")).unwrap();
    }
    expect_file![folder.join("results.txt")].assert_eq(&shown);
}
