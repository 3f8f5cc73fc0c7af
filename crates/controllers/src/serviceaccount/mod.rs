//! Keeps the ServiceAccount `default` in every namespace. Upstream: `service-account-controller`.

use crate::Context;
use crate::support::{NamespaceState, feed, queue};
use api::Kind as _;
use api::core::v1::ServiceAccount;
use client::controller::{Outcome, Writes, run as work};
use client::{Informer, ObjectKey, Projection};

const NAME: &str = "default";

struct Account;

impl Projection for Account {
    type Kind = ServiceAccount;

    fn project(_: &ServiceAccount) -> Self {
        Account
    }
}

/// Runs until shutdown. Keys are namespaces.
pub(crate) async fn run(context: Context) {
    let namespaces: Informer<NamespaceState> = context.informers.get();
    let accounts: Informer<Account> = context.informers.get();
    let queue = queue();
    feed(&namespaces, &queue, |namespace| [namespace.key().clone()]);
    feed(&accounts, &queue, |account| {
        (account.name() == NAME).then(|| ObjectKey::new("", account.namespace()))
    });
    namespaces.synced().await;
    accounts.synced().await;
    let client = context.client;
    work("serviceaccount", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (namespaces, accounts, client) = (namespaces.clone(), accounts.clone(), client.clone());
        async move {
            let wanted = namespaces.get(&key).is_some_and(|namespace| namespace.active);
            if !wanted || accounts.named(&key.name, NAME).is_some() {
                return Ok(Outcome::Done);
            }
            let mut account = ServiceAccount::new();
            account.metadata.name = NAME.into();
            account.metadata.namespace = key.name.to_string();
            match client.namespaced::<ServiceAccount>(&key.name).create(&account).await {
                Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => Err(error),
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}
