//! Stories of the graph: what is seen, and what is to be looked at then.

use super::graph::{Graph, Seen, Todo};
use super::names::Uid;
use apimachinery::meta::OwnerReference;
use client::ObjectKey;
use expect_test::{Expect, expect};

/// Lines of `put Kind namespace/name uid [deleting] [foreground] [orphan] [owner=Kind/name/uid[!]]…`, `gone uid`, `blocking uid` and
/// `absent Kind namespace/name uid`; `!` marks an owner that is blocked. A namespace may be empty.
fn check(story: &str, expected: Expect) {
    let mut graph = Graph::default();
    let mut told = String::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = |words: &[&str]| {
            let (namespace, name) = words[2].split_once('/').unwrap();
            (ObjectKey::new(namespace, name), Uid::from(words[3]))
        };
        let todo = match words[0] {
            "put" => {
                let (key, uid) = place(&words);
                let owner = |text: &str| {
                    let parts: Vec<&str> = text.trim_end_matches('!').split('/').collect();
                    OwnerReference {
                        api_version: "v1".into(),
                        kind: parts[0].into(),
                        name: parts[1].into(),
                        uid: parts[2].into(),
                        block_owner_deletion: Some(text.ends_with('!')),
                        ..Default::default()
                    }
                };
                let seen = Seen {
                    deleting: words.contains(&"deleting"),
                    foreground: words.contains(&"foreground"),
                    orphan: words.contains(&"orphan"),
                    owners: words.iter().filter_map(|word| word.strip_prefix("owner=")).map(owner).collect(),
                };
                let kind = graph.names.kind("v1", words[1]);
                graph.put(&kind, &key, uid, seen)
            }
            "gone" => graph.remove(&Uid::from(words[1])),
            "absent" => {
                let (key, uid) = place(&words);
                let at = super::names::Coordinates {
                    kind: graph.names.kind("v1", words[1]),
                    namespace: key.namespace,
                    name: key.name,
                    uid,
                };
                graph.absent(&at)
            }
            "blocking" => {
                graph.blocking(&Uid::from(words[1])).into_iter().map(|v| Todo::Delete(v.at.uid)).collect()
            }
            _ => panic!("{line}"),
        };
        let mut todo: Vec<String> = todo
            .iter()
            .map(|todo| match todo {
                Todo::Report { dependent, owner } => format!("Report({dependent} names {owner})"),
                other => format!("{other:?}"),
            })
            .collect();
        todo.sort();
        told += &format!("{line}\n");
        if !todo.is_empty() {
            told += &format!("    {}\n", todo.join(" "));
        }
    }
    told += &format!("{} nodes\n", graph.len());
    expected.assert_eq(&told);
}

#[test]
fn dependents_are_looked_at_when_their_owner_is_gone() {
    check(
        "put Set a/web s
         put Pod a/web-1 p1 owner=Set/web/s!
         put Pod a/web-1 p1 owner=Set/web/s!
         gone s
         gone p1",
        expect![[r#"
            put Set a/web s
            put Pod a/web-1 p1 owner=Set/web/s!
            put Pod a/web-1 p1 owner=Set/web/s!
            gone s
                Delete(p1)
            gone p1
            0 nodes
        "#]],
    );
}

#[test]
fn an_owner_that_was_never_seen_is_looked_for() {
    check(
        "put Pod a/web-1 p1 owner=Set/web/s
         put Pod a/web-2 p2 owner=Set/web/s
         absent Set a/web s
         put Pod a/web-3 p3 owner=Set/late/t
         put Set a/late t",
        expect![[r#"
            put Pod a/web-1 p1 owner=Set/web/s
                Delete(s)
            put Pod a/web-2 p2 owner=Set/web/s
            absent Set a/web s
                Delete(p1) Delete(p2)
            put Pod a/web-3 p3 owner=Set/late/t
                Delete(t)
            put Set a/late t
            4 nodes
        "#]],
    );
}

#[test]
fn foreground_deletion_waits_for_what_blocks() {
    check(
        "put Set a/web s
         put Pod a/web-1 p1 owner=Set/web/s!
         put Pod a/web-2 p2 owner=Set/web/s
         put Set a/web s deleting foreground
         put Set a/web s deleting foreground
         blocking s
         put Pod a/web-1 p1 owner=Set/web/s
         blocking s
         gone p2
         gone p1",
        expect![[r#"
            put Set a/web s
            put Pod a/web-1 p1 owner=Set/web/s!
            put Pod a/web-2 p2 owner=Set/web/s
            put Set a/web s deleting foreground
                Delete(p1) Delete(p2) Delete(s)
            put Set a/web s deleting foreground
            blocking s
                Delete(p1)
            put Pod a/web-1 p1 owner=Set/web/s
                Delete(s)
            blocking s
            gone p2
                Delete(s)
            gone p1
                Delete(s)
            1 nodes
        "#]],
    );
}

#[test]
fn orphans_are_let_go() {
    check(
        "put Set a/web s
         put Pod a/web-1 p1 owner=Set/web/s!
         put Set a/web s deleting orphan
         put Pod a/web-1 p1
         put Set a/web s deleting
         gone s",
        expect![[r#"
            put Set a/web s
            put Pod a/web-1 p1 owner=Set/web/s!
            put Set a/web s deleting orphan
                Orphan(s)
            put Pod a/web-1 p1
                Delete(s)
            put Set a/web s deleting
            gone s
            1 nodes
        "#]],
    );
}

#[test]
fn owners_in_other_namespaces_are_reported() {
    check(
        "put Set a/web s
         put Pod b/web-1 p1 owner=Set/web/s
         put Role /admin r
         put Pod b/web-2 p2 owner=Role/admin/r
         put Pod b/web-3 p3 owner=Set/other/t
         put Set a/other t",
        expect![[r#"
            put Set a/web s
            put Pod b/web-1 p1 owner=Set/web/s
                Delete(p1) Report([v1/Pod, namespace: b, name: web-1, uid: p1] names [v1/Set, namespace: b, name: web, uid: s])
            put Role /admin r
            put Pod b/web-2 p2 owner=Role/admin/r
            put Pod b/web-3 p3 owner=Set/other/t
                Delete(t)
            put Set a/other t
                Delete(p3) Report([v1/Pod, namespace: b, name: web-3, uid: p3] names [v1/Set, namespace: b, name: other, uid: t])
            6 nodes
        "#]],
    );
}

#[test]
fn dependents_that_disagree_about_their_owner_are_judged_apart() {
    check(
        "put Pod a/x p1 owner=Set/web/s
         put Pod b/y p2 owner=Set/web/s
         absent Set a/web s
         absent Set b/web s
         put Pod c/z p3 owner=Set/one/u
         put Set c/two u
         absent Set c/one u",
        expect![[r#"
            put Pod a/x p1 owner=Set/web/s
                Delete(s)
            put Pod b/y p2 owner=Set/web/s
                Delete(p2)
            absent Set a/web s
                Delete(p1) DeleteLater(s)
            absent Set b/web s
                Delete(p2) DeleteLater(s)
            put Pod c/z p3 owner=Set/one/u
                Delete(u)
            put Set c/two u
                Delete(p3)
            absent Set c/one u
                Delete(p3)
            5 nodes
        "#]],
    );
}
