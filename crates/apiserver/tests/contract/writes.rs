//! Creates, reads, updates and deletes (upstream's store_tests.go, without lists).

use crate::subject::{Subject, key, revision};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use apiserver::admission::Operation;
use futures::FutureExt as _;
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::suite::member;
use store::{Expect, Key, Write};

/// RunTestCreate.
pub async fn creates(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    assert_eq!(subject.get("test-ns/foo").await.0, 404);
    let made = subject.create("test-ns/foo").await;
    assert_eq!(key(&made), "test-ns/foo");
    assert!(revision(&made) > 0);
    assert_eq!(subject.get("test-ns/foo").await, (200, made));
    let mut versioned = subject.object("test-ns/bar");
    versioned["metadata"]["resourceVersion"] = "1".into();
    let (code, refused) = subject.call(Method::POST, &subject.path("test-ns"), versioned).await;
    // Upstream says the same with 500, as if it were the server's fault.
    assert_eq!(code, 400, "{refused}");
    assert_eq!(refused["message"], "resourceVersion should not be set on objects to be created");
    assert_eq!(subject.get("test-ns/bar").await.0, 404);
}

/// RunTestCreateWithKeyExist.
pub async fn refuses_a_second_create(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let made = subject.create("test-ns/foo").await;
    let again = subject.object("test-ns/foo");
    let (code, refused) = subject.call(Method::POST, &subject.path("test-ns"), again).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("AlreadyExists")), "{refused}");
    assert_eq!(subject.get("test-ns/foo").await.1, made);
}

/// RunTestGet.
pub async fn gets_at_revisions(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let created = subject.create("test-ns/foo").await;
    let stored = subject.patch("test-ns/foo", json!({"metadata": {"annotations": {"test": "1"}}})).await;
    let last = subject.create("test-ns/bar").await;
    let at = subject.at("test-ns/foo");
    let get = async |version: &str| {
        subject.call(Method::GET, &format!("{at}?resourceVersion={version}"), Value::Null).await
    };
    assert_eq!(get("").await, (200, stored.clone()));
    let (code, any) = get("0").await;
    assert!(code == 404 || any == created || any == stored, "{any}");
    let (_, any) = get(&revision(&created).to_string()).await;
    assert!(any == created || any == stored, "{any}");
    assert_eq!(get(&revision(&stored).to_string()).await, (200, stored.clone()));
    assert_eq!(get(&revision(&last).to_string()).await, (200, stored));
    let (code, refused) = get(&i64::MAX.to_string()).await;
    assert_eq!((code, &refused["reason"]), (504, &json!("Timeout")), "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{refused}");
    assert_eq!(get("abc").await.0, 400);
    assert_eq!(subject.get("test-ns/non-existing").await.0, 404);
}

/// RunTestUnconditionalDelete.
pub async fn deletes(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&stored))).await;
    subject.delete("test-ns/foo").await;
    let mut gone = watch.expect("DELETED").await;
    assert!(revision(&gone) > revision(&stored));
    gone["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
    assert_eq!(gone, stored);
    let (code, refused) = subject.call(Method::DELETE, &subject.at("test-ns/foo"), Value::Null).await;
    assert_eq!((code, &refused["reason"]), (404, &json!("NotFound")));
}

/// RunTestConditionalDelete, RunTestPreconditionalDeleteWithSuggestion and …WithOnlySuggestionPass: conditions are
/// judged on the newest state, whoever has seen which.
pub async fn deletes_on_conditions(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let delete = async |conditions: Value| {
        let options = json!({"preconditions": conditions});
        subject.call(Method::DELETE, &subject.at("test-ns/foo"), options).await
    };
    let first = subject.create("test-ns/foo").await;
    let (uid, version) = (&first["metadata"]["uid"], &first["metadata"]["resourceVersion"]);
    let (code, refused) = delete(json!({"uid": "another"})).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")), "{refused}");
    let second = subject.patch("test-ns/foo", json!({"metadata": {"labels": {"foo": "bar"}}})).await;
    assert_eq!(
        delete(json!({"resourceVersion": version})).await.0,
        409,
        "the first state is not there any more"
    );
    assert_eq!(subject.get("test-ns/foo").await.1, second);
    let version = &second["metadata"]["resourceVersion"];
    assert_eq!(delete(json!({"resourceVersion": version, "uid": uid})).await.0, 200);
    let again = subject.create("test-ns/foo").await;
    assert_eq!(delete(json!({"uid": uid})).await.0, 409, "another object of the same name");
    assert_eq!(subject.get("test-ns/foo").await.1, again);
    assert_eq!(delete(json!({"uid": again["metadata"]["uid"]})).await.0, 200);
}

/// RunTestDeleteWithSuggestion, …AndConflict and …OfDeletedObject: whatever was seen before, the newest state goes.
pub async fn deletes_what_is_newest(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/name").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&stored))).await;
    let mut updated = subject.patch("test-ns/name", json!({"metadata": {"labels": {"foo": "bar"}}})).await;
    subject.delete("test-ns/name").await;
    watch.expect_object("MODIFIED", &updated).await;
    let gone = watch.expect("DELETED").await;
    updated["metadata"]["resourceVersion"] = gone["metadata"]["resourceVersion"].clone();
    assert_eq!(gone, updated);
    assert_eq!(subject.get("test-ns/name").await.0, 404);
    assert_eq!(subject.call(Method::DELETE, &subject.at("test-ns/name"), Value::Null).await.0, 404);
}

/// Has somebody else label `test-ns/name` while a write is judged for the first time, through another door.
fn label_meanwhile(subject: &Subject, when: Operation) -> Arc<AtomicBool> {
    let (client, at) = (subject.house.client.clone(), subject.at("test-ns/name"));
    let done = Arc::new(AtomicBool::new(false));
    let first = done.clone();
    subject.interloper.acts(move |operation, _| {
        let (client, at, first) = (client.clone(), at.clone(), first.clone());
        async move {
            if operation != when || first.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
            let request = http::Request::patch(at)
                .header("content-type", "application/merge-patch+json")
                .body(json!({"metadata": {"labels": {"foo": "bar"}}}).to_string().into());
            let answer = client::transport::Transport::send(&client, request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            Ok(())
        }
        .boxed()
    });
    done
}

/// RunTestDeleteWithConflict.
pub async fn a_delete_that_is_overtaken_looks_again(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/name").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&stored))).await;
    let overtaken = label_meanwhile(subject, Operation::Delete);
    subject.delete("test-ns/name").await;
    // Twice for the delete, once for the update between.
    assert_eq!(subject.interloper.rests(), 3);
    assert!(overtaken.load(Ordering::SeqCst));
    let updated = watch.expect("MODIFIED").await;
    let gone = watch.expect("DELETED").await;
    assert_eq!(gone["metadata"]["labels"], updated["metadata"]["labels"]);
    assert_eq!(subject.get("test-ns/name").await.0, 404);
}

/// RunTestValidateDeletionWithSuggestion and …WithOnlySuggestionValid.
pub async fn a_deletion_is_judged_on_the_newest_state(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    subject.create("test-ns/name").await;
    let judge = |wanted: &'static str| {
        subject.interloper.acts(move |operation, old| {
            let fits = operation != Operation::Delete || old["metadata"]["labels"]["foo"] == wanted;
            let verdict = if fits { Ok(()) } else { Err(Status::bad_request("stale object")) };
            std::future::ready(verdict).boxed()
        });
    };
    let delete = async || subject.call(Method::DELETE, &subject.at("test-ns/name"), Value::Null).await;
    judge("bar");
    assert_eq!(delete().await.0, 400);
    assert_eq!(subject.interloper.rests(), 1, "the newest state is judged once");
    let updated = subject.patch("test-ns/name", json!({"metadata": {"labels": {"foo": "barbar"}}})).await;
    judge("bar");
    assert_eq!(delete().await.1["message"], "stale object");
    assert_eq!(subject.get("test-ns/name").await.1, updated);
    judge("barbar");
    assert_eq!(delete().await.0, 200);
    subject.interloper.rests();
    assert_eq!(subject.get("test-ns/name").await.0, 404);
}

/// RunTestGuaranteedUpdate.
pub async fn updates(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let absent = subject.at("test-ns/non-existing");
    assert_eq!(subject.call(Method::PATCH, &absent, json!({})).await.0, 404);
    let stored = subject.create("test-ns/foo").await;
    let at = subject.at("test-ns/foo");
    let same = subject.call(Method::PUT, &at, stored.clone()).await;
    assert_eq!(same, (200, stored.clone()), "the same is not written");
    assert_eq!(subject.patch("test-ns/foo", json!({})).await, stored);
    let mut linked = stored.clone();
    linked["metadata"]["selfLink"] = "testlink".into();
    assert_eq!(
        subject.call(Method::PUT, &at, linked).await,
        (200, stored.clone()),
        "nobody sets a self link"
    );
    let changed = subject.patch("test-ns/foo", json!({"metadata": {"annotations": {"version": "1"}}})).await;
    assert!(revision(&changed) > revision(&stored));
    assert_eq!(changed["metadata"]["annotations"], json!({"version": "1"}));
    let mut other = changed.clone();
    other["metadata"]["uid"] = "B".into();
    let (code, refused) = subject.call(Method::PUT, &at, other).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")), "{refused}");
    assert_eq!(subject.get("test-ns/foo").await.1, changed);
}

/// RunTestGuaranteedUpdateWithConflict.
pub async fn an_update_that_is_overtaken_runs_again(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    subject.create("test-ns/name").await;
    label_meanwhile(subject, Operation::Update);
    let updated = subject.patch("test-ns/name", json!({"metadata": {"annotations": {"a": "b"}}})).await;
    // The first attempt, the one that overtook it, and the second.
    assert_eq!(subject.interloper.rests(), 3);
    assert_eq!(updated["metadata"]["labels"], json!({"foo": "bar"}), "neither is lost");
    assert_eq!(updated["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(subject.get("test-ns/name").await.1, updated);
}

/// RunTestGuaranteedUpdateWithSuggestionAndConflict: who has seen an old state and insists on it is refused; who does
/// not is applied to the newest.
pub async fn an_update_of_an_old_state_is_refused(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let mut old = subject.create("test-ns/foo").await;
    let updated = subject.patch("test-ns/foo", json!({"metadata": {"labels": {"generation": "2"}}})).await;
    old["metadata"]["labels"] = json!({"generation": "3"});
    let (code, refused) = subject.call(Method::PUT, &subject.at("test-ns/foo"), old).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")), "{refused}");
    assert_eq!(subject.get("test-ns/foo").await.1, updated);
    let third = subject.patch("test-ns/foo", json!({"metadata": {"annotations": {"generation": "3"}}})).await;
    assert_eq!(third["metadata"]["labels"], json!({"generation": "2"}));
    let (code, refused) =
        subject.call(Method::PATCH, &subject.at("test-ns/foo"), json!({"metadata": 1})).await;
    assert!((400..500).contains(&code), "{refused}");
    assert_eq!(subject.get("test-ns/foo").await.1, third);
}

/// RunTestTransformationFailure.
pub async fn what_cannot_be_read_fails_alone(subject: &Subject) {
    subject.namespaces(&["first", "second"]).await;
    let good = subject.create("first/bar").await;
    damage(subject, "second/baz").await;
    let (code, refused) = subject.list("", "").await;
    assert_eq!((code, &refused["reason"]), (500, &json!("InternalError")), "{refused}");
    assert_eq!(subject.list("second", "").await.0, 500);
    let at = subject.at("second/baz");
    assert_eq!(subject.call(Method::GET, &at, Value::Null).await.0, 500);
    assert_eq!(subject.call(Method::PATCH, &at, json!({"metadata": {"labels": {"a": "b"}}})).await.0, 500);
    assert_eq!(subject.call(Method::DELETE, &at, Value::Null).await.0, 500);
    assert_eq!(subject.call(Method::GET, &at, Value::Null).await.0, 500, "it is still there");
    assert_eq!(subject.get("first/bar").await, (200, good.clone()), "others are not concerned");
    let list = subject.listed("first", "").await;
    assert_eq!(crate::subject::keys(&list), ["first/bar"]);
}

/// Puts something at a key that is no object, as a lost key or a failed disk leaves it; its revision.
pub async fn damage(subject: &Subject, key: &str) -> u64 {
    let (store, prefix) = (subject.store(), subject.prefix());
    let Some(etcd) = &subject.etcd else {
        let write = Write::put(Key { prefix, name: key.into() }, "no object", Expect::Any);
        return store.commit(write).await.unwrap().revision.0;
    };
    let mut watch = store.watch(&prefix, store.revision()).unwrap();
    member::etcdctl(etcd, &["put", &format!("{prefix}{key}"), "no object"]);
    watch.next_batch().await.unwrap()[0].revision.0
}

/// RunTestStats.
pub async fn counts_and_sizes(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let prefix = subject.prefix();
    let stats = || {
        let buckets = subject.store().stats().buckets.into_iter();
        let bucket = buckets.into_iter().find(|bucket| bucket.prefix == prefix);
        bucket.map_or((0, 0), |bucket| (bucket.keys, bucket.bytes))
    };
    let size = |key: &str| {
        let entry = subject.store().get(&Key { prefix: prefix.clone(), name: key.into() }).unwrap();
        (entry.name.len() + entry.value.len()) as u64
    };
    assert_eq!(stats(), (0, 0));
    subject.create("test-ns/foo").await;
    assert_eq!(stats(), (1, size("test-ns/foo")));
    subject.create("test-ns/bar").await;
    assert_eq!(stats(), (2, size("test-ns/foo") + size("test-ns/bar")));
    subject.patch("test-ns/bar", json!({"metadata": {"labels": {"foo": "bar"}}})).await;
    assert_eq!(stats(), (2, size("test-ns/foo") + size("test-ns/bar")));
    subject.delete("test-ns/foo").await;
    assert_eq!(stats(), (1, size("test-ns/bar")));
    assert_eq!(subject.call(Method::DELETE, &subject.at("test-ns/foo"), Value::Null).await.0, 404);
    assert_eq!(stats(), (1, size("test-ns/bar")));
    subject.delete("test-ns/bar").await;
    assert_eq!(stats(), (0, 0));
}

/// RunTestKeySchema: no name reaches a key that is not its object's.
pub async fn keys_are_well_formed(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let path = subject.path("test-ns");
    for name in [".", "..", "a/b", "", "a%b"] {
        let mut object = subject.object("test-ns/x");
        object["metadata"]["name"] = name.into();
        let (code, refused) = subject.call(Method::POST, &path, object).await;
        assert!(code == 422 || code == 500 && name.is_empty(), "{name:?}: {code} {refused}");
    }
    for at in ["..", ".", "%2e%2e", "a%2fb", "x%2f..%2fy"] {
        let (code, answer) = subject.call(Method::GET, &format!("{path}/{at}"), Value::Null).await;
        assert!((400..500).contains(&code), "{at}: {code} {answer}");
    }
    assert!(subject.store().snapshot(&subject.prefix()).is_empty());
}

/// RunTestCreateWithTTL and RunTestGuaranteedUpdateWithTTL, of the kind that has a time to live.
pub async fn expires(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let begun = std::time::Instant::now();
    let made = subject.create("test-ns/foo").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&made))).await;
    let updated = subject.patch("test-ns/foo", json!({"metadata": {"labels": {"a": "b"}}})).await;
    watch.expect_object("MODIFIED", &updated).await;
    let gone = watch.expect("DELETED").await;
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "it lived for {:?}", begun.elapsed());
    assert_eq!(gone["metadata"]["labels"], updated["metadata"]["labels"]);
    assert_eq!(subject.get("test-ns/foo").await.0, 404);
}

/// RunTestGuaranteedUpdateChecksStoredData, and the stale data of RunTestGuaranteedUpdate: an update that changes
/// nothing is written when what is kept is not what would be written.
pub async fn normalises(subject: &Subject) {
    let etcd = subject.etcd.as_ref().unwrap();
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let kept = format!("{}test-ns/foo", subject.prefix());
    // The same object as JSON, where upstream keeps protobuf.
    let mut plain = stored.clone();
    plain["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&stored))).await;
    member::etcdctl(etcd, &["put", &kept, &plain.to_string()]);
    let seen = watch.expect("MODIFIED").await;
    let (code, canonical) = subject.call(Method::PUT, &subject.at("test-ns/foo"), seen.clone()).await;
    assert_eq!(code, 200, "{canonical}");
    assert!(revision(&canonical) > revision(&seen), "it is written in its canonical form");
    let raw = member::etcdctl(etcd, &["get", &kept, "--print-value-only", "--hex"]);
    assert!(raw.starts_with(r"\x6b\x38\x73\x00"), "{raw}");
    let (_, same) = subject.call(Method::PUT, &subject.at("test-ns/foo"), canonical.clone()).await;
    assert_eq!(same, canonical, "and then no more");
}
