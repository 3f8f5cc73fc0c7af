//! Fills the secrets of type `kubernetes.io/service-account-token`, and removes them with their account.
//! Upstream: `tokens-controller`.

use crate::Context;
use crate::support::queue;
use api::ByteString;
use api::core::v1::{Secret, ServiceAccount};
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::value::Value;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::source::Query;
use client::{Cached, Change, Client, Informer, ObjectKey, Projection, Queue};
use parking_lot::Mutex;
use pki::jwt::Signer;
use std::collections::HashMap;
use std::sync::Arc;

const WORKERS: usize = 5;
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const BY_ACCOUNT: &str = "account";

/// What is kept of an account.
struct Account;

impl Projection for Account {
    type Kind = ServiceAccount;

    fn project(_: &ServiceAccount) -> Self {
        Account
    }
}

/// What is kept of a token: whose it is. The token itself is not.
struct Token {
    account: String,
    account_uid: String,
}

impl Projection for Token {
    type Kind = Secret;

    fn project(secret: &Secret) -> Self {
        let annotation = |name: &str| secret.metadata.annotations.get(name).cloned().unwrap_or_default();
        Token { account: annotation(ACCOUNT_NAME), account_uid: annotation(ACCOUNT_UID) }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_ACCOUNT, |token| vec![format!("{}/{}", token.namespace(), token.account)])]
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("signing a token: {0}")]
    Sign(#[from] pki::Error),
}

struct Loop {
    client: Client,
    accounts: Informer<Account>,
    tokens: Informer<Token>,
    signer: Arc<Signer>,
    root_ca: String,
    /// Accounts and their uids that deleted secrets belonged to.
    gone: Gone,
}

type Gone = Arc<Mutex<HashMap<ObjectKey, (String, String)>>>;

/// Runs until shutdown. Keys are secrets.
pub(crate) async fn run(context: Context) {
    // Without a key there is nothing to fill secrets with.
    let signer = context.cluster.signing.as_ref().and_then(|signing| signing.tokens.clone());
    let Some(signer) = signer else { return };
    let accounts: Informer<Account> = context.informers.get();
    let query = Query::of::<Secret>().fields(format!("type={TYPE}"));
    let tokens: Informer<Token> = context.informers.query(query);
    accounts.synced().await;
    tokens.synced().await;
    let queue: Queue<ObjectKey> = queue();
    let (changed, gone) = (queue.clone(), Gone::default());
    let deleted = gone.clone();
    tokens.subscribe(move |change| {
        let token = change.object();
        if matches!(change, Change::Deleted(_)) {
            let account = (token.account.clone(), token.account_uid.clone());
            deleted.lock().insert(token.key().clone(), account);
        }
        changed.add(token.key().clone());
    });
    let (known, changed) = (tokens.clone(), queue.clone());
    accounts.subscribe(move |change| {
        // An account that was made anew has another uid, and the old one's tokens go.
        if !matches!(change, Change::Updated { .. }) {
            let account = change.object();
            let name = format!("{}/{}", account.namespace(), account.name());
            known.by_index(BY_ACCOUNT, &name).iter().for_each(|token| changed.add(token.key().clone()));
        }
    });
    let root_ca = context.cluster.root_ca.clone();
    let this = Arc::new(Loop { client: context.client, accounts, tokens, signer, root_ca, gone });
    work("serviceaccount_tokens_service", queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

/// The claims of a token that lives in a secret.
fn claims(secret: &Secret, account: &str, account_uid: &str) -> Value {
    let namespace = &secret.metadata.namespace;
    json!({
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret.metadata.name,
        "kubernetes.io/serviceaccount/service-account.name": account,
        "kubernetes.io/serviceaccount/service-account.uid": account_uid,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
    })
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let gone = self.gone.lock().remove(key);
        let Some(token) = self.tokens.get(key) else {
            if let Some((account, uid)) = gone {
                self.drop_reference(key, &account, &uid).await?;
            }
            return Ok(Outcome::Done);
        };
        match self.account(key, &token).await? {
            None => self.delete(key, &token).await?,
            Some(uid) => self.fill(key, &token, &uid).await?,
        }
        Ok(Outcome::Done)
    }

    /// The uid of the account that the secret names.
    async fn account(&self, key: &ObjectKey, token: &Token) -> Result<Option<String>, Error> {
        let right = |uid: &str| token.account_uid.is_empty() || token.account_uid == uid;
        if let Some(account) = self.accounts.named(&key.namespace, &token.account)
            && right(&account.uid)
        {
            return Ok(Some(account.uid.to_string()));
        }
        // The cache may not know it yet.
        let live = self.client.namespaced::<ServiceAccount>(&key.namespace).get_opt(&token.account).await?;
        Ok(live.map(|account| account.metadata.uid).filter(|uid| right(uid)))
    }

    /// Takes a deleted secret from the list that its account has of them.
    async fn drop_reference(&self, key: &ObjectKey, account: &str, uid: &str) -> Result<(), Error> {
        if self.accounts.named(&key.namespace, account).is_none_or(|a| !uid.is_empty() && *a.uid != *uid) {
            return Ok(());
        }
        let api = self.client.namespaced::<ServiceAccount>(&key.namespace);
        loop {
            let Some(mut live) = api.get_opt(account).await? else { return Ok(()) };
            let before = live.secrets.len();
            live.secrets.retain(|secret| *secret.name != *key.name);
            let wrong = !uid.is_empty() && live.metadata.uid != uid;
            if wrong || live.secrets.len() == before {
                return Ok(());
            }
            match api.update(&live).await {
                Err(error) if error.is_conflict() => {}
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => return Ok(()),
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, token: &Cached<Token>) -> Result<(), Error> {
        let preconditions = Preconditions { uid: Some(token.uid.to_string()), ..Default::default() };
        let options = DeleteOptions { preconditions: Some(preconditions), ..Default::default() };
        match self.client.namespaced::<Secret>(&key.namespace).delete(&key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&self, key: &ObjectKey, token: &Cached<Token>, account_uid: &str) -> Result<(), Error> {
        let cached = token.decode()?;
        let needs = |secret: &Secret| {
            let data = |name: &str| secret.data.get(name).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
            (
                data("ca.crt") != self.root_ca.as_bytes(),
                data("namespace").is_empty(),
                data("token").is_empty(),
            )
        };
        if needs(&cached) == (false, false, false) {
            return Ok(());
        }
        let api = self.client.namespaced::<Secret>(&key.namespace);
        let Some(mut live) = api.get_opt(&key.name).await? else { return Ok(()) };
        if live.metadata.resource_version != cached.metadata.resource_version {
            // It will be looked at again when the cache has this version.
            return Ok(());
        }
        let (ca, namespace, signed) = needs(&live);
        let mut set = |name: &str, bytes: &[u8]| live.data.insert(name.into(), ByteString(bytes.to_vec()));
        if ca {
            set("ca.crt", self.root_ca.as_bytes());
        }
        if namespace {
            set("namespace", key.namespace.as_bytes());
        }
        if signed {
            let text = self.signer.sign(&claims(&cached, &token.account, account_uid))?;
            set("token", text.as_bytes());
        }
        live.metadata.annotations.insert(ACCOUNT_NAME.into(), token.account.clone());
        live.metadata.annotations.insert(ACCOUNT_UID.into(), account_uid.into());
        match api.update(&live).await {
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn claims_name_account_and_secret() {
        let mut secret = Secret::default();
        secret.metadata.name = "s".into();
        secret.metadata.namespace = "n".into();
        expect![[r#"{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"n","kubernetes.io/serviceaccount/secret.name":"s","kubernetes.io/serviceaccount/service-account.name":"a","kubernetes.io/serviceaccount/service-account.uid":"u","sub":"system:serviceaccount:n:a"}"#]]
            .assert_eq(&claims(&secret, "a", "u").to_string());
    }
}
