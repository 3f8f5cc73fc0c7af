//! A signer on a socket, and tokens that it signs.

use super::*;
use crate::authn::token_keys::Keys;
use apimachinery::json;
use apimachinery::value::Value;
use expect_test::{Expect, expect};
use signer::{Signer, State};
use tokio_util::sync::CancellationToken;

#[path = "../../../tests/house/signer.rs"]
mod signer;

/// A signer that is there, whoever asks it, and what is counted.
struct House {
    signer: Signer,
    plugin: ExternalSigner,
    metrics: Registry,
    socket: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

async fn house(change: impl FnOnce(&mut State)) -> House {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("signer");
    let mut signer = Signer::new();
    signer.set(change);
    signer.listen(&socket);
    let metrics = Registry::new();
    let plugin = ExternalSigner::connect(socket.to_str().unwrap(), &metrics).await.unwrap();
    House { signer, plugin, metrics, socket, _directory: directory }
}

impl House {
    /// The claims of a token that it signs, as far as the keys go that are known of it.
    async fn signed(&self) -> Result<Value, String> {
        let token = self.plugin.sign(&json!({"sub": "a"})).await.map_err(|failure| failure.to_string())?;
        Keys::External(self.plugin.keys().clone()).verify(&token).map_err(|error| error.to_string())
    }

    async fn refused(&self, wanted: Expect) {
        wanted.assert_eq(&self.signed().await.unwrap_err());
    }

    fn counted(&self, family: &str) -> String {
        let text = self.metrics.render();
        let lines = text.lines().filter(|line| line.starts_with(family)).map(|l| format!("{l}\n"));
        lines.collect()
    }
}

#[tokio::test]
async fn what_it_signs_is_checked() {
    let house = house(|_| ()).await;
    assert_eq!(house.signed().await.unwrap(), json!({"sub": "a"}));
    assert_eq!(house.signer.claims(), r#"{"sub":"a"}"#);
    let header = |text: &str| house.signer.set(|state| state.header = Some(text.to_owned()));
    for (text, wanted) in [
        (
            "no",
            expect!["while validating header: while parsing header JSON: expected ident at line 1 column 2"],
        ),
        (r#"{"alg":"ES256","kid":"a","typ":"JOSE"}"#, expect!["while validating header: bad type"]),
        (r#"{"alg":"ES256","typ":"JWT"}"#, expect!["while validating header: key id missing"]),
        (
            r#"{"alg":"HS256","kid":"a","typ":"JWT"}"#,
            expect![[r#"while validating header: bad signing algorithm "HS256""#]],
        ),
        (r#"{"kid":"a","typ":"JWT"}"#, expect![[r#"while validating header: bad signing algorithm """#]]),
        (
            r#"{"alg":"ES256","kid":"a","typ":"JWT","x5u":"b"}"#,
            expect![
                "while validating header: while parsing header JSON: unknown field `x5u`, expected one of `alg`, `kid`, `typ` at line 1 column 42"
            ],
        ),
    ] {
        header(text);
        house.refused(wanted).await;
    }
    header(&json!({"alg": "ES256", "kid": "k".repeat(1025), "typ": "JWT"}).to_string());
    house.refused(expect!["while validating header: key id longer than 1 kb"]).await;
    house.signer.set(|state| (state.header, state.mute) = (None, true));
    house.refused(expect!["empty signature returned"]).await;
    house
        .signer
        .set(|state| (state.mute, state.refusal) = (false, Some(Status::resource_exhausted("no ink"))));
    house.refused(expect!["while signing jwt: rpc error: code = ResourceExhausted desc = no ink"]).await;
    expect![[r#"
        apiserver_externaljwt_sign_request_total{code="OK"} 1
        apiserver_externaljwt_sign_request_total{code="ResourceExhausted"} 1
        apiserver_externaljwt_sign_request_total{code="unknown-non-grpc"} 8
    "#]]
    .assert_eq(&house.counted("apiserver_externaljwt_sign"));
    let durations = house.counted("apiserver_externaljwt_request_duration_seconds_count");
    expect![[r#"
        apiserver_externaljwt_request_duration_seconds_count{code="OK",method="/v1.ExternalJWTSigner/FetchKeys"} 1
        apiserver_externaljwt_request_duration_seconds_count{code="OK",method="/v1.ExternalJWTSigner/Metadata"} 1
        apiserver_externaljwt_request_duration_seconds_count{code="OK",method="/v1.ExternalJWTSigner/Sign"} 9
        apiserver_externaljwt_request_duration_seconds_count{code="ResourceExhausted",method="/v1.ExternalJWTSigner/Sign"} 1
    "#]]
    .assert_eq(&durations);
    expect![[r#"
        apiserver_externaljwt_fetch_keys_data_timestamp 1.0000000005e+09
    "#]]
    .assert_eq(&house.counted("apiserver_externaljwt_fetch_keys_data"));
}

#[tokio::test]
async fn keys_come_and_go() {
    let house = house(|_| ()).await;
    let old = house.plugin.sign(&json!({"sub": "old"})).await.unwrap();
    let keys = Keys::External(house.plugin.keys().clone());
    // A key that was never heard of is asked for when it signs.
    house.signer.rotate("b");
    assert!(house.signed().await.is_ok());
    assert!(keys.verify::<Value>(&old).is_ok(), "tokens of the old key stay good");
    // A token of a key under another's name is nobody's.
    house.signer.set(|state| state.header = Some(r#"{"alg":"ES256","kid":"a","typ":"JWT"}"#.into()));
    house.refused(expect!["token: signature does not verify with any known key"]).await;
    // A key that is withheld from others signs nothing.
    house.signer.set(|state| {
        state.header = None;
        state.keys.remove(0);
        state.keys[0].2 = true;
    });
    house.plugin.keys().sync().await.unwrap();
    house
        .refused(expect![
            "while validating header: key used for signing JWT (kid: b) is excluded from OIDC discovery docs"
        ])
        .await;
    assert!(keys.current().published.is_empty());
    expect!["token: invalid signature, no keys found"]
        .assert_eq(&keys.verify::<Value>(&old).unwrap_err().to_string());
    // Keys that cannot be had leave those that were.
    house.signer.set(|state| state.keys.clear());
    let failure = house.plugin.keys().sync().await.unwrap_err();
    expect!["while fetching token verification keys: found no keys"].assert_eq(&failure.to_string());
    house.signer.set(|state| state.refusal = Some(Status::internal("the safe is shut")));
    let failure = house.plugin.keys().sync().await.unwrap_err();
    expect!["while fetching token verification keys: while getting externally supported jwt signing keys: rpc error: code = Internal desc = the safe is shut"].assert_eq(&failure.to_string());
    assert!(keys.current().has("b"));
    expect![[r#"
        apiserver_externaljwt_fetch_keys_request_total{code="Internal"} 1
        apiserver_externaljwt_fetch_keys_request_total{code="OK"} 3
        apiserver_externaljwt_fetch_keys_request_total{code="unknown-non-grpc"} 1
    "#]]
    .assert_eq(&house.counted("apiserver_externaljwt_fetch_keys_request"));
}

#[tokio::test]
async fn keys_are_fetched_when_the_signer_said() {
    let house = house(|state| state.refresh_hint = 1).await;
    let shutdown = CancellationToken::new();
    let following = tokio::spawn(house.plugin.keys().clone().follow(shutdown.clone()));
    let mut fetched = house.signer.fetched();
    house.signer.rotate("b");
    fetched.wait_for(|fetched| *fetched >= 3).await.unwrap();
    assert!(house.plugin.keys().current().has("b"));
    shutdown.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn a_signer_goes_away_and_comes_back() {
    let mut house = house(|_| ()).await;
    let keys = Keys::External(house.plugin.keys().clone());
    let claims = json!({"sub": "a"});
    for _ in 0..3 {
        house.signer.leave().await;
        // Whoever asks meanwhile waits: it is not there before the first attempt has failed.
        let mut asking = Box::pin(house.plugin.sign(&claims));
        let broken = house.plugin.line.broken.clone();
        while broken.lock().is_none() {
            assert!(futures::poll!(&mut asking).is_pending());
            tokio::task::yield_now().await;
        }
        house.signer.listen(&house.socket);
        let token = asking.await.unwrap();
        assert_eq!(keys.verify::<Value>(&token).unwrap(), claims);
    }
}

#[tokio::test]
async fn many_wait_for_one_fetch() {
    let house = house(|_| ()).await;
    let keys = house.plugin.keys();
    let before = *house.signer.fetched().borrow();
    futures::future::join_all((0..50).map(|i| {
        let keys = keys.clone();
        async move { keys.learn(&format!("nobody-{i}")).await }
    }))
    .await;
    assert_eq!(*house.signer.fetched().borrow(), before + 1);
}

#[tokio::test]
async fn abstract_sockets_are_found() {
    let name = format!("@tiphys-signer-{}", uuid::Uuid::new_v4());
    let mut signer = Signer::new();
    signer.listen(name.as_ref());
    let plugin = ExternalSigner::connect(&name, &Registry::new()).await.unwrap();
    assert_eq!(plugin.longest(), Duration::from_secs(86_400));
}

#[tokio::test]
async fn a_start_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("signer");
    let connect = async |limit| {
        let metrics = Registry::new();
        let connected = ExternalSigner::connect_within(socket.to_str().unwrap(), &metrics, limit).await;
        let said = connected.unwrap_err().to_string();
        said.replace(directory.path().to_str().unwrap(), "DIR")
    };
    let absent = connect(Duration::from_millis(200)).await;
    expect![[r#"while initially filling key cache: while performing initial cache fill: while fetching token verification keys: while getting externally supported jwt signing keys: rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = "transport: Error while dialing: dial unix DIR/signer: connect: no such file or directory""#]].assert_eq(&absent);
    let mut signer = Signer::new();
    signer.set(|state| state.longest = 599);
    signer.listen(&socket);
    expect!["max token life supported by external-jwt-signer (599s) is less than acceptable (min 600s)"]
        .assert_eq(&connect(CALL).await);
    signer.set(|state| state.refresh_hint = 0);
    expect!["while initially filling key cache: while performing initial cache fill: while fetching token verification keys: found invalid refresh hint (0s)"].assert_eq(&connect(CALL).await);
}
