//! The contract of storage as clients see it: upstream's shared storage tests, put to the handlers over the view, on the
//! embedded engine and on real etcd, for kinds of the table and for custom ones. Which of upstream's tests is where
//! stands in docs/store.md.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../house/mod.rs"]
mod house;
mod lists;
mod pages;
mod scoped;
mod semantics;
mod subject;
mod watches;
mod writes;

use apiserver::resources::Resources;
use apiserver::storage::{UpstreamForm, prefixes};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use store::embedded::Embedded;
use store::etcd::{Etcd, split_by};
use store::suite::member;
use store::{Store, Transform};
use subject::{CLUSTER, NAMESPACED, Subject};

type Behaviour = (&'static str, for<'a> fn(&'a Subject) -> BoxFuture<'a, ()>);

macro_rules! behaviours {
    ($($room:ident::$name:ident),* $(,)?) => { &[$((stringify!($name), |subject| Box::pin($room::$name(subject)))),*] };
}

const BEHAVIOURS: &[Behaviour] = behaviours![
    writes::creates,
    writes::refuses_a_second_create,
    writes::gets_at_revisions,
    writes::deletes,
    writes::deletes_on_conditions,
    writes::deletes_what_is_newest,
    writes::a_delete_that_is_overtaken_looks_again,
    writes::a_deletion_is_judged_on_the_newest_state,
    writes::updates,
    writes::an_update_that_is_overtaken_runs_again,
    writes::an_update_of_an_old_state_is_refused,
    writes::what_cannot_be_read_fails_alone,
    writes::counts_and_sizes,
    writes::keys_are_well_formed,
    lists::lists,
    lists::lists_are_consistent,
    lists::one_object_by_name,
    lists::names_that_begin_alike,
    lists::compaction_is_told,
    pages::continues,
    pages::finds_the_rare_one,
    pages::continues_with_a_filter,
    pages::continues_inconsistently,
    pages::matches_revisions_with_a_filter,
    pages::pages_are_of_one_revision,
    scoped::lists_by_namespace_and_fields,
    scoped::watches_by_namespace_and_fields,
    watches::watches_what_matches,
    watches::watches_from_zero,
    watches::watches_from_a_revision,
    watches::a_deletion_has_the_newest_revision,
    watches::what_came_before_the_end_is_delivered,
    watches::an_unreadable_object_ends_the_watch,
    watches::nothing_follows_an_error,
    watches::a_watch_that_nobody_wants_ends,
    watches::who_does_not_read_holds_nobody_up,
    semantics::initial_events,
    semantics::the_end_of_the_list_has_the_stores_revision,
    semantics::one_object_by_name,
    semantics::begins_at_once,
];

const CLUSTER_BEHAVIOURS: &[Behaviour] = behaviours![scoped::watches_in_the_cluster];

/// Which kinds the behaviours are put to: those of the table, or custom ones.
#[derive(Clone, Copy)]
enum Kinds {
    Table = 0,
    Custom = 1,
}

/// Runs every behaviour on one store.
async fn run(mut subject: Subject, kinds: Kinds) {
    for (all, behaviours) in [(NAMESPACED, BEHAVIOURS), (CLUSTER, CLUSTER_BEHAVIOURS)] {
        subject.kind = &all[kinds as usize];
        for (name, behaviour) in behaviours {
            // What a failure belongs to.
            println!("{} {name}", subject.kind.plural);
            let bounded = tokio::time::timeout(Duration::from_secs(60), behaviour(&subject)).await;
            assert!(bounded.is_ok(), "{name}: did not end");
            subject.clear().await;
        }
    }
}

fn embedded(home: &tempfile::TempDir) -> Arc<dyn Store> {
    Embedded::open(home.path().join("store"), Default::default()).unwrap()
}

/// As `tiphys apiserver` opens it: in upstream's layout and encodings.
async fn etcd(members: &[member::Member]) -> Arc<dyn Store> {
    let resources = Resources::new(api::table(), &[]);
    let form: Arc<dyn Transform> = Arc::new(UpstreamForm::new(&resources));
    let options = store::etcd::Options {
        servers: members.iter().map(|member| member.url.clone()).collect(),
        split: split_by(prefixes(&resources)),
        transform: form,
        compaction: Duration::ZERO,
        ..Default::default()
    };
    Etcd::open(options).await.unwrap()
}

async fn over(members: &[member::Member]) -> Subject {
    let mut subject = Subject::over(etcd(members).await).await;
    subject.etcd = Some(members[0].url.clone());
    subject
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_the_table_over_the_embedded_engine() {
    let home = tempfile::tempdir().unwrap();
    run(Subject::over(embedded(&home)).await, Kinds::Table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_kinds_over_the_embedded_engine() {
    let home = tempfile::tempdir().unwrap();
    run(Subject::over(embedded(&home)).await, Kinds::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_the_table_over_etcd() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    run(over(&members).await, Kinds::Table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_kinds_over_etcd() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    run(over(&members).await, Kinds::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_briefly_expires_over_the_embedded_engine() {
    let home = tempfile::tempdir().unwrap();
    writes::expires(&Subject::brief(embedded(&home)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_briefly_expires_over_etcd() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    writes::expires(&Subject::brief(etcd(&members).await).await).await;
}

#[tokio::test]
async fn bookmarks_come_with_the_stores_revision() {
    let home = tempfile::tempdir().unwrap();
    let subject = Subject::over(embedded(&home)).await;
    // The store's writer is no task: time stands still for it as long as something else is under way.
    let (over, until) = std::sync::mpsc::channel::<()>();
    let inhibited = tokio::task::spawn_blocking(move || until.recv());
    tokio::time::pause();
    semantics::bookmarks(&subject).await;
    drop(over);
    assert!(inhibited.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_canonical_is_written_anew() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    writes::normalises(&over(&members).await).await;
}
