//! Trees: objects of a type that are almost right, and such as no type has.

use crate::dice::Dice;
use crate::sample;
use apimachinery::json;
use apimachinery::value::{Map, Value};
use apiserver::resources::Served;

/// Texts that mean something somewhere, and should not hurt anywhere.
const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "sample",
    "kube-system",
    "default",
    "..",
    ".",
    "/",
    "a/b",
    "a/b/c",
    "%",
    "%00",
    "\0",
    "\u{feff}",
    "\u{2028}",
    "é",
    "𝒳",
    "-1",
    "0",
    "1",
    "1e400",
    "99999999999999999999",
    "0x10",
    "1Ei",
    "1.5Gi",
    "-0",
    "+1",
    "1e-30",
    "100%",
    "NaN",
    "2030-01-02T03:04:05Z",
    "9999-99-99T99:99:99Z",
    "-0001-01-01T00:00:00Z",
    "1h",
    "1000000h1m",
    "*",
    "$patch",
    "{{}}",
    "${jndi}",
    "<script>",
    "'; --",
    "a\nb",
    "a\r\nX: y",
    "::1",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "fe80::1%eth0",
    "300.1.1.1",
    "self.x.y.z == 1",
    "object.spec.replicas > (1",
    "[1,2,3].all(x, x > 0)",
    "size(object) == 0 || true",
    "(a+)+$",
    "[",
    "a{1000}",
    "k8s.io/x",
    "example.com/y",
    "app=web,!tier",
    "x in (a,b",
    "c2FtcGxl",
    "====",
    "tcp",
    "TCP",
    "system:masters",
    "True",
    "null",
];

/// A text, a few of them long.
pub fn text(dice: &mut Dice) -> String {
    match dice.below(12) {
        0 => dice.pick(TEXTS).repeat(dice.below(300)),
        1 => String::from_utf8_lossy(&dice.bytes(40)).into_owned(),
        _ => dice.pick(TEXTS).to_owned(),
    }
}

pub fn number(dice: &mut Dice) -> Value {
    match dice.below(10) {
        0 => json!(i64::MAX),
        1 => json!(i64::MIN),
        2 => json!(u64::MAX),
        3 => json!(-1),
        4 => json!(0),
        5 => json!(1e308),
        6 => json!(-0.5),
        7 => json!(i32::MAX as i64 + 1),
        8 => json!(dice.next() as i64),
        _ => json!(dice.below(70_000)),
    }
}

/// Any tree.
pub fn any(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth > 5 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(dice.once_in(2)),
        2 => number(dice),
        3 | 4 => json!(text(dice)),
        5 => (0..dice.below(5)).map(|_| any(dice, depth + 1)).collect(),
        _ => {
            let members = (0..dice.below(5)).map(|_| (key(dice), any(dice, depth + 1)));
            Value::Object(members.collect())
        }
    }
}

fn key(dice: &mut Dice) -> String {
    const KEYS: &[&str] = &[
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "spec",
        "status",
        "items",
        "labels",
        "annotations",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "resourceVersion",
        "uid",
        "generateName",
        "deletionTimestamp",
        "x-kubernetes-preserve-unknown-fields",
        "op",
        "path",
        "value",
        "from",
        "template",
        "containers",
        "ports",
        "selector",
        "matchLabels",
        "matchExpressions",
    ];
    if dice.once_in(6) { text(dice) } else { dice.pick(KEYS).to_owned() }
}

/// An object of a resource, somewhat bent: one that would be taken as it was, or one with everything in it.
pub fn object(dice: &mut Dice, resource: &Served, seed: Option<&Value>, name: &str) -> Value {
    let mut object = match seed.filter(|_| !dice.once_in(4)) {
        Some(seed) => seed.clone(),
        None => sample::object(&resource.table, resource.ty, dice.below(5)),
    };
    if let Value::Object(members) = &mut object {
        let named = json!({"name": name, "labels": {"app": "web"}});
        members.insert("metadata", if dice.once_in(20) { any(dice, 2) } else { named });
        if dice.once_in(3) {
            members.remove("status");
        }
    }
    for _ in 0..dice.below(4) {
        bend(dice, &mut object, 0);
    }
    object
}

/// Changes one thing somewhere.
fn bend(dice: &mut Dice, value: &mut Value, depth: usize) {
    let within = depth < 8 && !dice.once_in(5);
    match value {
        Value::Object(members) if within && !members.is_empty() => {
            let chosen = members.keys().nth(dice.below(members.len())).cloned().unwrap_or_default();
            if dice.once_in(12) {
                members.remove(&chosen);
            } else if dice.once_in(12) {
                members.insert(key(dice), any(dice, 3));
            } else if let Some(member) = members.get_mut(&chosen) {
                bend(dice, member, depth + 1);
            }
        }
        Value::Array(items) if within && !items.is_empty() => {
            let at = dice.below(items.len());
            if dice.once_in(4) {
                let item = items[at].clone();
                items.push(item);
            } else {
                bend(dice, &mut items[at], depth + 1);
            }
        }
        Value::Object(members) if dice.once_in(2) => *members = Map::new(),
        other => *other = any(dice, 3),
    }
}

/// A JSON patch, or what looks like one.
pub fn json_patch(dice: &mut Dice) -> Value {
    const OPS: &[&str] = &["add", "remove", "replace", "move", "copy", "test", "Add", ""];
    const PLACES: &[&str] = &[
        "",
        "/",
        "/metadata",
        "/metadata/labels/a",
        "/metadata/name",
        "/spec",
        "/spec/-",
        "/spec/0",
        "/spec/01",
        "/spec/-1",
        "/~",
        "/~2",
        "/~0~1",
        "/metadata/managedFields",
        "/kind",
        "/a/b/c",
        "metadata",
        "/metadata/finalizers/-",
        "/metadata/finalizers/99999999999999999999",
        "/data",
        "/items",
    ];
    let place = |dice: &mut Dice| if dice.once_in(8) { text(dice) } else { dice.pick(PLACES).to_owned() };
    let steps = (0..dice.below(6)).map(|_| {
        let mut step = json!({"op": dice.pick(OPS), "path": place(dice)});
        if !dice.once_in(4) {
            step["value"] = any(dice, 2);
        }
        if dice.once_in(2) {
            step["from"] = place(dice).into();
        }
        step
    });
    steps.collect()
}
