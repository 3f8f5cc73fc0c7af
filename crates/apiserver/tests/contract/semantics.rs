//! How watches begin, and what bookmarks say (upstream's RunWatchSemantics, RunWatchSemanticInitialEventsExtended,
//! RunWatchListMatchSingle, RunSendInitialEventsBackwardCompatibility, RunTestWatchInitializationSignal,
//! RunOptionalTestProgressNotify, RunTestWatchDispatchBookmarkEvents and …BookmarksWithCorrectResourceVersion).

use crate::subject::{Subject, Watching, revision};
use apimachinery::json;
use apimachinery::value::Value;
use std::time::Duration;

/// A little longer than between two bookmarks.
const MINUTE: Duration = Duration::from_secs(61);

async fn expect_all(watch: &mut Watching, objects: &[Value]) {
    for object in objects {
        watch.expect_object("ADDED", object).await;
    }
}

/// A bookmark that ends the list, at a revision no older than this one; there is nothing else in it.
async fn expect_end(watch: &mut Watching, like: &Value, least: u64) -> u64 {
    let bookmark = watch.expect("BOOKMARK").await;
    assert_eq!(bookmark["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&like["kind"], &like["apiVersion"]));
    assert_eq!(bookmark["metadata"].get("name"), None, "{bookmark}");
    assert!(revision(&bookmark) >= least, "{bookmark}");
    revision(&bookmark)
}

/// RunWatchSemantics, through the rules of the request: who wants the state first says NotOlderThan.
pub async fn initial_events(subject: &Subject) {
    let versions = ["", "0", "1", "now"];
    let wishes = [Some(true), Some(false), None];
    let mut cases = Vec::new();
    for version in versions {
        for wish in wishes {
            for bookmarks in [true, false] {
                cases.push((version, wish, bookmarks));
            }
        }
    }
    for (index, (version, wish, bookmarks)) in cases.into_iter().enumerate() {
        let namespace = format!("ns-{index}");
        subject.namespaces(&[&namespace]).await;
        let before = revision(&subject.listed("", "").await);
        let mut objects = Vec::new();
        for name in ["pod-1", "pod-2", "pod-3"] {
            objects.push(subject.create(&format!("{namespace}/{name}")).await);
        }
        let last = revision(&objects[2]);
        // "1" stands for a revision before everything that is in the namespace, still in the history.
        let version = match version {
            "1" => before.to_string(),
            "now" => last.to_string(),
            other => other.to_owned(),
        };
        let mut query = format!("allowWatchBookmarks={bookmarks}&resourceVersion={version}");
        if let Some(wish) = wish {
            query += &format!("&sendInitialEvents={wish}&resourceVersionMatch=NotOlderThan");
        }
        let mut watch = subject.watch(&namespace, &query).await;
        let exact = version == before.to_string();
        // Without a wish, a revision means: from there on. With one, the state comes first, or not.
        let legacy = wish.is_none() && matches!(version.as_str(), "" | "0");
        let told = wish == Some(true) || legacy || exact;
        if told {
            expect_all(&mut watch, &objects).await;
        }
        // Upstream's defaults make a wish of the legacy form.
        if bookmarks && (wish == Some(true) || legacy) {
            expect_end(&mut watch, &objects[0], last).await;
        }
        assert_eq!(watch.ready(), None, "{query}");
        let mut more = Vec::new();
        for name in ["pod-4", "pod-5"] {
            more.push(subject.create(&format!("{namespace}/{name}")).await);
        }
        expect_all(&mut watch, &more).await;
        assert!(watch.ready().is_none(), "{query}");
    }
    // RunSendInitialEventsBackwardCompatibility.
    let wish = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    subject.watch("", wish).await;
    assert_eq!(subject.try_watch("", "sendInitialEvents=true").await.0, 422, "the match must be said");
}

/// RunWatchSemanticInitialEventsExtended.
pub async fn the_end_of_the_list_has_the_stores_revision(subject: &Subject) {
    subject.namespaces(&["ns-foo", "other-ns-foo"]).await;
    let mut objects = Vec::new();
    for index in 1..=5 {
        objects.push(subject.create(&format!("ns-foo/pod-{index}")).await);
    }
    let other = subject.create("other-ns-foo/pod-1").await;
    let wish = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = subject.watch("ns-foo", wish).await;
    expect_all(&mut watch, &objects).await;
    assert_eq!(expect_end(&mut watch, &other, 0).await, revision(&other));
    assert!(watch.ready().is_none());
}

/// RunWatchListMatchSingle.
pub async fn one_object_by_name(subject: &Subject) {
    subject.namespaces(&["ns-foo"]).await;
    let wanted = subject.create("ns-foo/pod-1").await;
    let mut last = json!({});
    for index in 2..=5 {
        last = subject.create(&format!("ns-foo/pod-{index}")).await;
    }
    let wish = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = subject.watch("", &format!("{wish}&fieldSelector=metadata.name%3Dpod-1")).await;
    watch.expect_object("ADDED", &wanted).await;
    assert_eq!(expect_end(&mut watch, &wanted, 0).await, revision(&last));
    assert!(watch.ready().is_none());
}

/// RunTestWatchInitializationSignal: a watch is answered before anything happens.
pub async fn begins_at_once(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let begin = format!("resourceVersion={}", revision(&stored));
    let mut watch =
        tokio::time::timeout(Duration::from_secs(5), subject.watch("test-ns", &begin)).await.unwrap();
    assert!(watch.ready().is_none());
}

/// RunOptionalTestProgressNotify and the two of bookmarks, on virtual time.
pub async fn bookmarks(subject: &Subject) {
    subject.namespaces(&["test-ns", "other-ns"]).await;
    let stored = subject.create("test-ns/foo").await;
    let begin = format!("resourceVersion={}", revision(&stored));
    let mut silent =
        subject.watch("test-ns", &format!("{begin}&allowWatchBookmarks=false&timeoutSeconds=100")).await;
    let mut watch =
        subject.watch("test-ns", &format!("{begin}&allowWatchBookmarks=true&timeoutSeconds=200")).await;
    // Nothing of this namespace: the bookmark says that the watch has seen it pass.
    let elsewhere = subject.create("other-ns/foo").await;
    tokio::time::advance(MINUTE).await;
    let bookmark = watch.expect("BOOKMARK").await;
    assert_eq!(revision(&bookmark), revision(&elsewhere));
    assert_eq!(bookmark["metadata"].get("annotations"), None, "{bookmark}");
    let mut last = revision(&bookmark);
    let mut bookmarks = 1;
    for index in 0..20 {
        let made = subject.create(&format!("test-ns/pod-{index}")).await;
        loop {
            let event = watch.event().await.unwrap();
            let at = revision(&event["object"]);
            if event["type"] == "BOOKMARK" {
                assert!(at >= last, "a bookmark is never older than what came before");
                bookmarks += 1;
            } else {
                assert!(at > last);
                assert_eq!(event["object"], made);
            }
            last = at;
            if event["type"] == "ADDED" {
                break;
            }
        }
        if index % 10 == 9 {
            tokio::time::advance(MINUTE).await;
            let bookmark = watch.expect("BOOKMARK").await;
            assert_eq!(revision(&bookmark), last);
            bookmarks += 1;
        }
    }
    assert_eq!(bookmarks, 3);
    tokio::time::advance(MINUTE).await;
    assert!(watch.event().await.is_none(), "its time is over");
    for index in 0..20 {
        assert_eq!(silent.expect("ADDED").await["metadata"]["name"], format!("pod-{index}"));
    }
    assert!(silent.event().await.is_none(), "who did not ask gets no bookmarks");
}
