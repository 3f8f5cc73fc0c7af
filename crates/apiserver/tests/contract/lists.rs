//! Lists at revisions (upstream's RunTestList, …ConsistentList, …GetListNonRecursive, …GetListRecursivePrefix and
//! …CompactRevision). Every line of the table is a request and what comes of it; revisions stand by their names.

use crate::subject::{Subject, keys, revision, token};
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::cache::Continue;
use expect_test::expect;
use std::collections::BTreeMap;

/// Upstream's multi-level data: six objects, an update, a deletion.
struct Seed {
    names: BTreeMap<&'static str, u64>,
}

impl Seed {
    async fn plant(subject: &Subject) -> Self {
        subject.namespaces(&["first", "second", "third"]).await;
        let mut names = BTreeMap::new();
        names.insert("initial", revision(&subject.listed("", "").await));
        let objects = ["first/bar", "second/bar", "second/foo", "third/barfoo", "third/foo", "second/baz"];
        for (name, key) in ["c0", "c1", "c2", "c3", "c4", "c5"].into_iter().zip(objects) {
            names.insert(name, revision(&subject.create(key).await));
        }
        names.insert("u", revision(&subject.patch("first/bar", subject.assigned("fake")).await));
        subject.delete("second/baz").await;
        names.insert("d", revision(&subject.listed("", "").await));
        subject.compact(names["c0"]).await;
        names.insert("now", subject.advance().await);
        Seed { names }
    }

    /// A revision by its name.
    fn revision(&self, name: &str) -> String {
        match (name, self.names.get(name)) {
            (_, Some(revision)) => revision.to_string(),
            ("future", _) => (self.names["now"] + 1).to_string(),
            ("max", _) => i64::MAX.to_string(),
            (other, _) => other.to_owned(),
        }
    }

    fn name(&self, revision: &str) -> String {
        let found = self.names.iter().find(|(_, known)| known.to_string() == revision);
        found.map_or_else(|| revision.to_owned(), |(name, _)| (*name).to_owned())
    }

    /// `first limit=1 rv=c0 match=Exact from=bar\0@c1 field=…` as namespace and query.
    fn query<'a>(&self, subject: &Subject, line: &'a str) -> (&'a str, String) {
        let mut words = line.split_whitespace();
        let namespace = words.next().unwrap().trim_matches('*');
        let mut query = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            query.push(match name {
                "rv" => format!("resourceVersion={}", self.revision(value)),
                "match" => format!("resourceVersionMatch={value}"),
                "from" => {
                    let (start, at) = value.split_once('@').unwrap();
                    let at = self.revision(at).parse().unwrap();
                    format!("continue={}", Continue::new(at, &start.replace("\\0", "\0")).encode())
                }
                "name" => format!("fieldSelector=metadata.name%3D{value}"),
                "not" => format!("fieldSelector=metadata.name!%3D{value}"),
                "member" => format!("fieldSelector={}%3D{value}", subject.kind.field),
                _ => word.to_owned(),
            });
        }
        (namespace, query.join("&"))
    }

    /// What is answered: the objects with their revisions, the list's, where it goes on and how much is left.
    fn told(&self, code: u16, list: &Value) -> String {
        if code != 200 {
            let reason = list["reason"].as_str().unwrap_or_default();
            let message: String = list["message"].as_str().unwrap_or_default().chars().take(60).collect();
            // Up to the first number: those are not the same on every store.
            let message = message.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
            return format!("{code} {reason}: {message}");
        }
        let item = |item: &Value| {
            format!("{}@{}", crate::subject::key(item), self.name(&revision(item).to_string()))
        };
        let mut told: Vec<String> = list["items"].as_array().unwrap().iter().map(item).collect();
        told.push(format!("| {}", self.name(list["metadata"]["resourceVersion"].as_str().unwrap())));
        if !token(list).is_empty() {
            let token = Continue::parse(token(list)).unwrap();
            told.push(format!("> {}@{}", token.start.replace('\0', "\\0"), self.name(&token.rv.to_string())));
        }
        if let Some(left) = list["metadata"]["remainingItemCount"].as_i64() {
            told.push(format!("+{left}"));
        }
        told.join(" ")
    }
}

const REQUESTS: &str = r"
* rv=abc
* limit=1 from=foo@d rv=c0
* rv=max
first
first rv=0
first rv=c0 match=Exact
second rv=c0 match=Exact
second rv=c1 match=Exact
first rv=initial match=Exact
first rv=0 match=NotOlderThan
first rv=0 match=Invalid
first rv=initial match=NotOlderThan
first rv=initial match=Invalid
first rv=d
first rv=d match=Exact
first rv=d match=NotOlderThan
non-existing
first not=bar
first not=bar rv=d match=NotOlderThan
second limit=1
second limit=1 rv=d
second limit=1 rv=d match=Exact
second limit=1 rv=d match=NotOlderThan
second limit=1 rv=c0 match=Exact
second limit=1 rv=c1 match=Exact
second limit=1 from=foo@d
second limit=1 from=foo@d rv=0
second
second rv=d match=NotOlderThan
* name=barfoo limit=1
* name=barfoo limit=1 rv=d match=NotOlderThan
* name=barfoo limit=2
* name=barfoo limit=2 rv=d match=NotOlderThan
* name=barfoo limit=2 rv=0
* name=bar limit=2
* name=bar limit=2 rv=d match=NotOlderThan
* name=foo limit=2
* name=foo limit=2 rv=d match=NotOlderThan
* name=foo limit=2 from=third/barfoo@d
* name=foo limit=1 from=third/barfoo@d
* name=foo limit=5
* name=foo limit=5 rv=d match=NotOlderThan
* name=barfoo limit=5
* name=barfoo limit=5 rv=d match=NotOlderThan
*
* rv=d match=NotOlderThan
* member=fake limit=5 rv=d match=NotOlderThan
* name=baz limit=5 rv=d match=NotOlderThan
empty
empty rv=0
* rv=initial match=Exact
* rv=c0 match=Exact
* rv=c1 match=Exact
* rv=c2 match=Exact
* rv=c3 match=Exact
* rv=c4 match=Exact
* rv=c5 match=Exact
* rv=u match=Exact
* rv=d match=Exact
* rv=now match=Exact
* rv=future match=Exact
* limit=1 rv=c1 match=Exact
* limit=2 rv=c2 match=Exact
* limit=4 rv=c3 match=Exact
* limit=1 rv=c4 match=Exact
* limit=2 rv=c5 match=Exact
* limit=4 rv=u match=Exact
* limit=8 rv=d match=Exact
* limit=1 rv=now match=Exact
* limit=1 from=first/bar\0@initial
* limit=1 from=first/bar\0@c0
* limit=1 from=first/bar\0@c1
* limit=2 from=second/bar\0@c2
* limit=1 from=first/bar\0@c4
* limit=2 from=second/bar\0@c5
* limit=4 from=second/foo\0@u
* limit=1 from=first/bar\0@now
* from=first/bar\0@-1
* limit=2 from=first/bar\0@-1
* from=second/foo\0@-1
* from=@d
* from=first/bar\0@0
* rv=-1
";

/// RunTestList.
pub async fn lists(subject: &Subject) {
    let seed = Seed::plant(subject).await;
    let mut told = String::from("\n");
    for line in REQUESTS.lines().filter(|line| !line.is_empty()) {
        let (namespace, query) = seed.query(subject, line);
        let (code, list) = subject.list(namespace, &query).await;
        told += &format!("{line}\n    {}\n", seed.told(code, &list));
    }
    expect![[r#"

        * rv=abc
            400 BadRequest: invalid resource version: resourceVersion: Invalid value: "a
        * limit=1 from=foo@d rv=c0
            400 BadRequest: specifying resource version is not allowed when using contin
        * rv=max
            504 Timeout: Timeout: Too large resource version: 
        first
            first/bar@u | now
        first rv=0
            first/bar@u | now
        first rv=c0 match=Exact
            first/bar@c0 | c0
        second rv=c0 match=Exact
            | c0
        second rv=c1 match=Exact
            second/bar@c1 | c1
        first rv=initial match=Exact
            410 Expired: The resourceVersion for the provided list is too old.
        first rv=0 match=NotOlderThan
            first/bar@u | now
        first rv=0 match=Invalid
            422 Invalid: ListOptions.meta.k
        first rv=initial match=NotOlderThan
            first/bar@u | now
        first rv=initial match=Invalid
            422 Invalid: ListOptions.meta.k
        first rv=d
            first/bar@u | now
        first rv=d match=Exact
            first/bar@u | d
        first rv=d match=NotOlderThan
            first/bar@u | now
        non-existing
            | now
        first not=bar
            | now
        first not=bar rv=d match=NotOlderThan
            | now
        second limit=1
            second/bar@c1 | now > bar\0@now +1
        second limit=1 rv=d
            second/bar@c1 | d > bar\0@d +1
        second limit=1 rv=d match=Exact
            second/bar@c1 | d > bar\0@d +1
        second limit=1 rv=d match=NotOlderThan
            second/bar@c1 | now > bar\0@now +1
        second limit=1 rv=c0 match=Exact
            | c0
        second limit=1 rv=c1 match=Exact
            second/bar@c1 | c1
        second limit=1 from=foo@d
            second/foo@c2 | d
        second limit=1 from=foo@d rv=0
            second/foo@c2 | d
        second
            second/bar@c1 second/foo@c2 | now
        second rv=d match=NotOlderThan
            second/bar@c1 second/foo@c2 | now
        * name=barfoo limit=1
            third/barfoo@c3 | now > third/barfoo\0@now
        * name=barfoo limit=1 rv=d match=NotOlderThan
            third/barfoo@c3 | now > third/barfoo\0@now
        * name=barfoo limit=2
            third/barfoo@c3 | now
        * name=barfoo limit=2 rv=d match=NotOlderThan
            third/barfoo@c3 | now
        * name=barfoo limit=2 rv=0
            third/barfoo@c3 | now
        * name=bar limit=2
            first/bar@u second/bar@c1 | now > second/bar\0@now
        * name=bar limit=2 rv=d match=NotOlderThan
            first/bar@u second/bar@c1 | now > second/bar\0@now
        * name=foo limit=2
            second/foo@c2 third/foo@c4 | now
        * name=foo limit=2 rv=d match=NotOlderThan
            second/foo@c2 third/foo@c4 | now
        * name=foo limit=2 from=third/barfoo@d
            third/foo@c4 | d
        * name=foo limit=1 from=third/barfoo@d
            third/foo@c4 | d
        * name=foo limit=5
            second/foo@c2 third/foo@c4 | now
        * name=foo limit=5 rv=d match=NotOlderThan
            second/foo@c2 third/foo@c4 | now
        * name=barfoo limit=5
            third/barfoo@c3 | now
        * name=barfoo limit=5 rv=d match=NotOlderThan
            third/barfoo@c3 | now
        *
            first/bar@u second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | now
        * rv=d match=NotOlderThan
            first/bar@u second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | now
        * member=fake limit=5 rv=d match=NotOlderThan
            first/bar@u | now
        * name=baz limit=5 rv=d match=NotOlderThan
            | now
        empty
            | now
        empty rv=0
            | now
        * rv=initial match=Exact
            410 Expired: The resourceVersion for the provided list is too old.
        * rv=c0 match=Exact
            first/bar@c0 | c0
        * rv=c1 match=Exact
            first/bar@c0 second/bar@c1 | c1
        * rv=c2 match=Exact
            first/bar@c0 second/bar@c1 second/foo@c2 | c2
        * rv=c3 match=Exact
            first/bar@c0 second/bar@c1 second/foo@c2 third/barfoo@c3 | c3
        * rv=c4 match=Exact
            first/bar@c0 second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | c4
        * rv=c5 match=Exact
            first/bar@c0 second/bar@c1 second/baz@c5 second/foo@c2 third/barfoo@c3 third/foo@c4 | c5
        * rv=u match=Exact
            first/bar@u second/bar@c1 second/baz@c5 second/foo@c2 third/barfoo@c3 third/foo@c4 | u
        * rv=d match=Exact
            first/bar@u second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | d
        * rv=now match=Exact
            first/bar@u second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | now
        * rv=future match=Exact
            504 Timeout: Timeout: Too large resource version: 
        * limit=1 rv=c1 match=Exact
            first/bar@c0 | c1 > first/bar\0@c1 +1
        * limit=2 rv=c2 match=Exact
            first/bar@c0 second/bar@c1 | c2 > second/bar\0@c2 +1
        * limit=4 rv=c3 match=Exact
            first/bar@c0 second/bar@c1 second/foo@c2 third/barfoo@c3 | c3
        * limit=1 rv=c4 match=Exact
            first/bar@c0 | c4 > first/bar\0@c4 +4
        * limit=2 rv=c5 match=Exact
            first/bar@c0 second/bar@c1 | c5 > second/bar\0@c5 +4
        * limit=4 rv=u match=Exact
            first/bar@u second/bar@c1 second/baz@c5 second/foo@c2 | u > second/foo\0@u +2
        * limit=8 rv=d match=Exact
            first/bar@u second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | d
        * limit=1 rv=now match=Exact
            first/bar@u | now > first/bar\0@now +4
        * limit=1 from=first/bar\0@initial
            410 Expired: The provided continue parameter is too old to display a cons
        * limit=1 from=first/bar\0@c0
            | c0
        * limit=1 from=first/bar\0@c1
            second/bar@c1 | c1
        * limit=2 from=second/bar\0@c2
            second/foo@c2 | c2
        * limit=1 from=first/bar\0@c4
            second/bar@c1 | c4 > second/bar\0@c4 +3
        * limit=2 from=second/bar\0@c5
            second/baz@c5 second/foo@c2 | c5 > second/foo\0@c5 +2
        * limit=4 from=second/foo\0@u
            third/barfoo@c3 third/foo@c4 | u
        * limit=1 from=first/bar\0@now
            second/bar@c1 | now > second/bar\0@now +3
        * from=first/bar\0@-1
            second/bar@c1 second/foo@c2 third/barfoo@c3 third/foo@c4 | now
        * limit=2 from=first/bar\0@-1
            second/bar@c1 second/foo@c2 | now > second/foo\0@now +2
        * from=second/foo\0@-1
            third/barfoo@c3 third/foo@c4 | now
        * from=@d
            400 BadRequest: invalid continue token: continue key is not valid: 
        * from=first/bar\0@0
            400 BadRequest: invalid continue token: continue key is not valid: incorrect
        * rv=-1
            400 BadRequest: invalid resource version: resourceVersion: Invalid value: "-
    "#]]
    .assert_eq(&told);
}

/// RunTestConsistentList.
pub async fn lists_are_consistent(subject: &Subject) {
    subject.namespaces(&["default"]).await;
    subject.create("default/foo").await;
    let now = subject.advance().await;
    for (query, consistent) in [
        ("resourceVersion=0".to_owned(), false),
        (String::new(), true),
        (format!("continue={}", Continue::new(-1, "a").encode()), true),
        ("resourceVersion=0".to_owned(), false),
    ] {
        let newest = subject.store().consistent_snapshot("/registry/configmaps/").await.unwrap().revision.0;
        let found = revision(&subject.listed("empty", &query).await);
        assert!(found <= newest && (!consistent || found == newest), "{query}: {found}, newest {newest}");
        assert!(found >= now || !consistent);
        subject.advance().await;
    }
}

/// RunTestGetListNonRecursive: a list of the one object that has the name.
pub async fn one_object_by_name(subject: &Subject) {
    subject.namespaces(&["test-ns"]).await;
    let before = subject.create("test-ns/foo").await;
    let stored = subject.patch("test-ns/foo", json!({"metadata": {"annotations": {"version": "2"}}})).await;
    subject.advance().await;
    let (old, new) = (revision(&before), revision(&stored));
    let list = async |query: String| {
        let (code, list) = subject.list("test-ns", &format!("fieldSelector=metadata.name%3D{query}")).await;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let found: Vec<_> = items.iter().map(revision).collect();
        (code, found)
    };
    assert_eq!(list("foo".into()).await, (200, vec![new]));
    for query in [
        "foo&resourceVersion=0".into(),
        "foo&resourceVersion=0&resourceVersionMatch=NotOlderThan".into(),
        format!("foo&resourceVersion={old}&resourceVersionMatch=NotOlderThan"),
    ] {
        let (code, found) = list(query).await;
        assert!(code == 200 && found.iter().all(|at| [old, new].contains(at)), "{found:?}");
    }
    for query in [
        format!("foo&resourceVersion={new}"),
        format!("foo&resourceVersion={new}&resourceVersionMatch=NotOlderThan"),
        format!("foo&resourceVersion={new}&resourceVersionMatch=Exact"),
    ] {
        assert_eq!(list(query).await, (200, vec![new]));
    }
    assert_eq!(list(format!("foo&resourceVersion={old}&resourceVersionMatch=Exact")).await, (200, vec![old]));
    assert_eq!(list(format!("foo&resourceVersion={}", i64::MAX)).await.0, 504);
    assert_eq!(list("non-existing".into()).await, (200, vec![]));
    let other =
        subject.listed("test-ns", &format!("fieldSelector=metadata.name!%3Dfoo&resourceVersion={new}")).await;
    assert_eq!(keys(&other), Vec::<String>::new());
}

/// RunTestGetListRecursivePrefix: names and namespaces that begin alike are told apart.
pub async fn names_that_begin_alike(subject: &Subject) {
    subject.namespaces(&["test-ns", "test-ns2"]).await;
    subject.create("test-ns/foo").await;
    subject.create("test-ns/foobar").await;
    let last = revision(&subject.create("test-ns2/baz").await);
    for how in [
        format!("resourceVersion={last}&resourceVersionMatch=Exact"),
        String::new(),
        "resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned(),
    ] {
        let list = async |namespace: &str, name: &str| {
            let field = if name.is_empty() {
                String::new()
            } else {
                format!("&fieldSelector=metadata.name%3D{name}")
            };
            keys(&subject.listed(namespace, &format!("{how}{field}")).await)
        };
        assert_eq!(list("", "").await, ["test-ns/foo", "test-ns/foobar", "test-ns2/baz"]);
        assert_eq!(list("test-ns", "").await, ["test-ns/foo", "test-ns/foobar"]);
        assert_eq!(list("test", "").await, Vec::<String>::new());
        assert_eq!(list("test-ns", "foo").await, ["test-ns/foo"]);
        assert_eq!(list("test-ns", "foobar").await, ["test-ns/foobar"]);
        assert_eq!(list("test-ns", "fo").await, Vec::<String>::new());
    }
}

/// RunTestCompactRevision.
pub async fn compaction_is_told(subject: &Subject) {
    let before = revision(&subject.listed("", "").await);
    assert!(subject.store().stats().compacted.0 < before);
    let exact = format!("resourceVersion={before}&resourceVersionMatch=Exact");
    assert_eq!(subject.list("", &exact).await.0, 200);
    let compacted = subject.advance().await;
    subject.compact(compacted).await;
    let (code, refused) = subject.list("", &exact).await;
    assert_eq!((code, &refused["reason"]), (410, &json!("Expired")), "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("The resourceVersion for the provided list is too old"), "{message}");
    assert_eq!(subject.store().stats().compacted.0, compacted);
}
