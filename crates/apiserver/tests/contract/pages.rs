//! Pages (upstream's RunTestListContinuation, …PaginationRareObject, …ContinuationWithFilter,
//! …InconsistentContinuation, …ResourceVersionMatch and …Paging).

use crate::subject::{Subject, keys, revision, token};
use apimachinery::json;
use apimachinery::value::Value;
use http::Method;

/// RunTestListContinuation.
pub async fn continues(subject: &Subject) {
    subject.namespaces(&["first", "second"]).await;
    let mut last = Value::Null;
    for key in ["first/bar", "second/bar", "second/foo"] {
        last = subject.create(key).await;
    }
    let at = revision(&last);
    let page = async |query: &str| {
        let list = subject.listed("", query).await;
        assert_eq!(revision(&list), at, "{query}");
        (keys(&list), token(&list).to_owned())
    };
    let (found, second) = page("limit=1").await;
    assert_eq!(found, ["first/bar"]);
    let (found, end) = page(&format!("continue={second}")).await;
    assert_eq!((found, &*end), (vec!["second/bar".to_owned(), "second/foo".into()], ""));
    let (found, third) = page(&format!("limit=1&continue={second}")).await;
    assert_eq!(found, ["second/bar"]);
    let (found, end) = page(&format!("limit=1&continue={third}")).await;
    assert_eq!((found, &*end), (vec!["second/foo".to_owned()], ""));
}

/// RunTestListPaginationRareObject.
pub async fn finds_the_rare_one(subject: &Subject) {
    const COUNT: usize = 300;
    subject.namespaces(&["default"]).await;
    let create = |index: usize| subject.create_owned(format!("default/pod-{index:03}"));
    futures::future::join_all((0..COUNT).map(create)).await;
    let list = subject.listed("", &format!("limit=1&fieldSelector=metadata.name%3Dpod-{}", COUNT - 1)).await;
    assert_eq!((keys(&list), token(&list)), (vec![format!("default/pod-{}", COUNT - 1)], ""));
}

/// RunTestListContinuationWithFilter.
pub async fn continues_with_a_filter(subject: &Subject) {
    subject.namespaces(&["1", "2", "3", "4"]).await;
    let mut last = Value::Null;
    for key in ["1/foo", "2/bar", "3/foo", "4/foo"] {
        last = subject.create(key).await;
    }
    let first = subject.listed("", "limit=2&fieldSelector=metadata.name!%3Dbar").await;
    assert_eq!(keys(&first), ["1/foo", "3/foo"]);
    assert_eq!(revision(&first), revision(&last));
    assert_eq!(
        first["metadata"]["remainingItemCount"],
        Value::Null,
        "nobody counts what selectors leave out"
    );
    let query = format!("limit=2&fieldSelector=metadata.name!%3Dbar&continue={}", token(&first));
    let second = subject.listed("", &query).await;
    assert_eq!((keys(&second), token(&second)), (vec!["4/foo".to_owned()], ""));
    assert_eq!(revision(&second), revision(&last));
}

/// RunTestListInconsistentContinuation.
pub async fn continues_inconsistently(subject: &Subject) {
    subject.namespaces(&["first", "second"]).await;
    for key in ["first/bar", "second/bar", "second/foo"] {
        subject.create(key).await;
    }
    let first = subject.listed("", "limit=1").await;
    assert_eq!(keys(&first), ["first/bar"]);
    let updated = subject.patch("second/foo", json!({"metadata": {"labels": {"state": "new"}}})).await;
    subject.compact(revision(&updated)).await;
    let (code, refused) = subject.list("", &format!("continue={}", token(&first))).await;
    assert_eq!((code, &refused["reason"]), (410, &json!("Expired")), "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("The provided continue parameter is too old"), "{message}");
    let anyway = token(&refused);
    let second = subject.listed("", &format!("limit=1&continue={anyway}")).await;
    assert_eq!(keys(&second), ["second/bar"]);
    assert!(revision(&second) >= revision(&updated));
    let third = subject.listed("", &format!("limit=1&continue={}", token(&second))).await;
    assert_eq!((keys(&third), token(&third)), (vec!["second/foo".to_owned()], ""));
    assert_eq!(revision(&third), revision(&second), "consistent again from there on");
    assert_eq!(third["items"][0]["metadata"]["labels"], json!({"state": "new"}));
}

/// RunTestListResourceVersionMatch: others write while a filtered list is put together.
pub async fn matches_revisions_with_a_filter(subject: &Subject) {
    subject.namespaces(&["default"]).await;
    let create = |index: usize| async move {
        let mut object = subject.object(&format!("default/pod-{index:02}"));
        object["metadata"]["labels"] = json!({"even": index.is_multiple_of(2).to_string()});
        assert_eq!(subject.call(Method::POST, &subject.path("default"), object).await.0, 201);
    };
    futures::future::join_all((0..5).map(create)).await;
    let select = "labelSelector=even%3Dtrue&limit=4";
    let (first, ..) = tokio::join!(subject.listed("", select), create(5), create(6), create(7));
    let at = |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let exact = |at: String| format!("{select}&resourceVersion={at}&resourceVersionMatch=Exact");
    let again = subject.listed("", &exact(at(&first))).await;
    assert_eq!(again, first);
    let newer = format!("{select}&resourceVersion={}&resourceVersionMatch=NotOlderThan", at(&first));
    let (newer, ..) = tokio::join!(subject.listed("", &newer), create(8), create(9));
    assert_eq!(subject.listed("", &exact(at(&newer))).await, newer);
}

/// RunTestListPaging.
pub async fn pages_are_of_one_revision(subject: &Subject) {
    subject.namespaces(&["paging"]).await;
    for index in 0..4 {
        subject.create(&format!("paging/test-{index}")).await;
    }
    let (mut found, mut query, mut calls) = (Vec::new(), "limit=1".to_owned(), 0);
    loop {
        calls += 1;
        let list = subject.listed("", &query).await;
        found.extend(keys(&list));
        if token(&list).is_empty() {
            break;
        }
        if calls == 2 {
            subject.create("paging/test-5").await;
        }
        query = format!("limit=1&continue={}", token(&list));
    }
    assert_eq!(calls, 4);
    assert_eq!(found, ["paging/test-0", "paging/test-1", "paging/test-2", "paging/test-3"]);
}
