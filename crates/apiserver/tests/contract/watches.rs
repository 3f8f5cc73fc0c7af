//! Watches (upstream's watcher_tests.go, without what selects and how they begin).

use crate::subject::{Subject, revision};
use crate::writes::damage;
use apimachinery::json;
use std::time::Duration;

/// RunTestWatch: what begins to match is added, what ends to match is deleted.
pub async fn watches_what_matches(subject: &Subject) {
    subject.namespaces(&["ns", "ns-bad"]).await;
    let selected = json!({"metadata": {"labels": {"select": "true"}}});
    let unselected = json!({"metadata": {"labels": {"select": null}}});
    let (bar, field) = (subject.assigned("bar"), subject.kind.field);
    let base = json!({});
    let cases = [
        (String::new(), vec![(&base, "ADDED")]),
        (format!("fieldSelector={field}%3Dbar"), vec![(&base, ""), (&bar, "ADDED")]),
        (String::new(), vec![(&base, "ADDED"), (&bar, "MODIFIED")]),
        (format!("fieldSelector={field}!%3Dbar"), vec![(&base, "ADDED"), (&bar, "DELETED")]),
        (
            "labelSelector=select%3Dtrue".into(),
            vec![
                (&selected, "ADDED"),
                (&unselected, "DELETED"),
                (&selected, "ADDED"),
                (&bar, "MODIFIED"),
                (&apimachinery::value::Value::Null, "DELETED"),
            ],
        ),
    ];
    for (selector, steps) in cases {
        let begin = revision(&subject.listed("ns", "").await);
        let mut watch = subject.watch("ns", &format!("{selector}&resourceVersion={begin}")).await;
        subject.create("ns-bad/foo").await;
        let mut before = json!({});
        for (change, kind) in steps {
            if change.is_null() {
                subject.delete("ns/foo").await;
                let gone = watch.expect(kind).await;
                before["metadata"]["resourceVersion"] = gone["metadata"]["resourceVersion"].clone();
                assert_eq!(gone, before);
                continue;
            }
            let written = subject.ensure("ns/foo", change).await;
            match kind {
                "" => {}
                "DELETED" => {
                    before["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"].clone();
                    watch.expect_object(kind, &before).await;
                }
                _ => watch.expect_object(kind, &written).await,
            }
            before = written;
        }
        assert!(watch.ready().is_none(), "{selector}: the other namespace is not watched");
        subject.clear().await;
    }
}

/// RunTestWatchFromZero.
pub async fn watches_from_zero(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let one = "fieldSelector=metadata.name%3Dfoo&resourceVersion";
    let mut watch = subject.watch("test-ns", &format!("{one}=0")).await;
    watch.expect_object("ADDED", &stored).await;
    let updated = subject.patch("test-ns/foo", json!({"metadata": {"annotations": {"a": "1"}}})).await;
    watch.expect_object("MODIFIED", &updated).await;
    let mut again = subject.watch("test-ns", &format!("{one}=0")).await;
    again.expect_object("ADDED", &updated).await;
    let newest = subject.patch("test-ns/foo", json!({"metadata": {"annotations": null}})).await;
    subject.compact(revision(&newest)).await;
    let mut again = subject.watch("test-ns", &format!("{one}=0")).await;
    again.expect_object("ADDED", &newest).await;
    let (code, mut old) = subject.try_watch("test-ns", &format!("{one}={}", revision(&updated))).await;
    // At once, or as the stream's one event.
    let status = match code {
        200 => old.expect("ERROR").await,
        _ => apimachinery::json!({"code": code, "reason": "Expired"}),
    };
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
}

/// RunTestWatchFromNonZero and RunTestDeleteTriggerWatch.
pub async fn watches_from_a_revision(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&stored))).await;
    assert!(watch.ready().is_none(), "what was before the revision is not told");
    let updated = subject.patch("test-ns/foo", json!({"metadata": {"annotations": {"version": "2"}}})).await;
    watch.expect_object("MODIFIED", &updated).await;
    subject.delete("test-ns/foo").await;
    watch.expect("DELETED").await;
}

/// RunTestWatchDeleteEventObjectHaveLatestRV.
pub async fn a_deletion_has_the_newest_revision(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={}", revision(&stored))).await;
    subject.delete("test-ns/foo").await;
    let gone = watch.expect("DELETED").await;
    assert_eq!(revision(&gone), revision(&subject.listed("test-ns", "").await));
    assert!(revision(&gone) > revision(&stored));
}

/// RunTestDelayedWatchDelivery: who reads late gets all, in order.
pub async fn what_came_before_the_end_is_delivered(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let begin = revision(&subject.create("test-ns/first").await);
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={begin}")).await;
    for index in 0..40 {
        subject.create(&format!("test-ns/foo-{index}")).await;
    }
    for index in 0..40 {
        let object = watch.expect("ADDED").await;
        assert_eq!(object["metadata"]["name"], format!("foo-{index}"));
    }
    assert!(watch.ready().is_none());
}

/// RunTestWatchError; and the deletion of what cannot be read, as in RunTestWatchWithUnsafeDelete: an error, not silence.
pub async fn an_unreadable_object_ends_the_watch(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let begin = revision(&subject.listed("test-ns", "").await);
    let written = damage(subject, "test-ns/foo").await;
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={begin}")).await;
    let status = watch.expect("ERROR").await;
    assert_eq!(status["code"], 500, "{status}");
    assert!(watch.event().await.is_none(), "the watch ends");
    let mut watch = subject.watch("test-ns", &format!("resourceVersion={written}")).await;
    let key = store::Key { prefix: subject.prefix(), name: "test-ns/foo".into() };
    subject.store().commit(store::Write::delete(key, store::Expect::Any)).await.unwrap();
    assert_eq!(watch.expect("ERROR").await["code"], 500);
    assert!(watch.event().await.is_none());
}

/// RunWatchErrorIsBlockingFurtherEvents.
pub async fn nothing_follows_an_error(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let before = subject.create("test-ns/foo").await;
    damage(subject, "test-ns/bar").await;
    subject.create("test-ns/baz").await;
    for _ in 0..10 {
        let mut watch = subject.watch("", &format!("resourceVersion={}", revision(&before))).await;
        watch.expect("ERROR").await;
        assert!(watch.event().await.is_none(), "what follows would hide the gap");
    }
}

/// RunTestWatchContextCancel: a watch whose time is over ends without a word.
pub async fn a_watch_that_nobody_wants_ends(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let mut watch = subject.watch("not-existing", "resourceVersion=0&timeoutSeconds=1").await;
    assert!(watch.event().await.is_none());
    // Dropped half way: nothing is left of it.
    drop(subject.watch("test-ns", "resourceVersion=0").await);
    subject.create("test-ns/foo").await;
}

/// RunTestWatcherTimeout.
pub async fn who_does_not_read_holds_nobody_up(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let begin = format!("resourceVersion={}", revision(&subject.listed("", "").await));
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(subject.watch("test-ns", &begin).await);
    }
    let mut reading = subject.watch("test-ns", &begin).await;
    let begun = std::time::Instant::now();
    for index in 0..22 {
        let made = subject.create(&format!("test-ns/foo-{index}")).await;
        reading.expect_object("ADDED", &made).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // And they have lost nothing.
    for watch in &mut idle {
        for index in 0..22 {
            assert_eq!(watch.expect("ADDED").await["metadata"]["name"], format!("foo-{index}"));
        }
    }
}
