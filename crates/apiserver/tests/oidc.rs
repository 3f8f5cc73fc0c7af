//! Tokens of an OpenID provider, over real TLS: which users their claims make, and why they are refused.
#![allow(clippy::unwrap_used)]

#[path = "house/provider.rs"]
mod provider;

use apimachinery::clock::{Clock, FakeClock};
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::authn::configuration::AuthenticationConfiguration;
use apiserver::authn::oidc::{ALGORITHMS, Issuers, OidcMetrics, ReloadError, Shared};
use apiserver::authn::tokens::{Agnostic, TokenAuthenticator as _};
use apiserver::authn::validation::validate;
use component::metrics::Registry;
use expect_test::{Expect, expect};
use provider::{Key, Provider};
use std::sync::Arc;
use std::time::Duration;

const NOW: i64 = 1_800_000_000;

struct House {
    provider: Provider,
    key: Key,
    clock: Arc<FakeClock>,
    metrics: Registry,
}

/// The claims of a token that is good for an hour, with more or others.
fn claims(issuer: &str, more: Value) -> Value {
    let mut claims = json!({"iss": issuer, "aud": "client", "exp": NOW + 3600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

impl House {
    async fn new() -> Self {
        let key = Key::new("RS256");
        let provider = Provider::start(&[("k", &key)]).await;
        let clock = Arc::new(FakeClock::new(apimachinery::time::Timestamp::from_second(NOW).unwrap()));
        House { provider, key, clock, metrics: Registry::new() }
    }

    /// The text of a file with one authenticator of the provider: YAML below `issuer` and below the authenticator.
    fn text(&self, issuer: &str, rest: &str) -> String {
        let url = self.provider.url();
        let ca = self.provider.program.ca.replace('\n', "\n      ");
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {url}\n    audiences: [client]\n    certificateAuthority: |\n      {ca}\n    {}\n  {}\n",
            issuer.replace('\n', "\n    "),
            rest.replace('\n', "\n  ")
        )
    }

    fn issuers(&self, text: &str) -> Issuers {
        let configuration = AuthenticationConfiguration::parse(text).unwrap();
        assert_eq!(validate(&configuration, &[]).aggregate(), None);
        let shared = Shared {
            algorithms: ALGORITHMS.map(str::to_owned).to_vec().into(),
            disallowed_issuers: Vec::new(),
            clock: self.clock.clone(),
            metrics: OidcMetrics::new(&self.metrics, "server"),
            egress: Arc::default(),
        };
        Issuers::new(&configuration, shared).unwrap()
    }

    /// Those of a configuration, once the provider was found.
    async fn ready(&self, text: &str) -> Issuers {
        let issuers = self.issuers(text);
        issuers.ready().await;
        issuers
    }

    async fn ask(&self, issuers: &Issuers, token: &str) -> String {
        let answer = issuers.authenticate(token, &[]).await;
        let said = match answer {
            Ok(None) => "not known".into(),
            Err(errors) => errors.join("; "),
            Ok(Some(known)) => {
                let user = known.user;
                let mut said = format!("{} {:?}", user.name, user.groups);
                if !user.uid.is_empty() {
                    said.push_str(&format!(" uid={}", user.uid));
                }
                if !user.extra.is_empty() {
                    said.push_str(&format!(" {:?}", user.extra));
                }
                said
            }
        };
        said.replace(self.provider.url(), "ISSUER")
    }

    /// What is said of tokens with these claims more, under one configuration.
    async fn check(&self, rest: &str, tokens: &[Value], expected: Expect) {
        let issuers = self.ready(&self.text("", rest)).await;
        let mut all = String::new();
        for more in tokens {
            let token = self.key.token("k", &claims(self.provider.url(), more.clone()));
            all.push_str(&format!("{more}: {}\n", self.ask(&issuers, &token).await));
        }
        expected.assert_eq(&all);
    }
}

const SUBJECT: &str = "claimMappings:\n  username: {claim: sub, prefix: \"\"}";

#[tokio::test]
async fn claims_make_users() {
    let house = House::new().await;
    house
        .check(
            "claimMappings:\n  username: {claim: sub, prefix: 'oidc:'}\n  groups: {claim: groups, prefix: 'oidc:'}\n  uid: {claim: id}",
            &[
                json!({"sub": "jane", "groups": ["a", "b"], "id": "7", "jti": "t"}),
                json!({"sub": "jane", "groups": "one", "id": "7"}),
                json!({"sub": "jane", "id": "7"}),
                json!({"sub": "jane"}),
                json!({"sub": 1, "id": "7"}),
                json!({"sub": "jane", "id": "7", "groups": {"a": 1}}),
                json!({"sub": "jane", "id": "7", "groups": [1]}),
            ],
            expect![[r#"
                {"groups":["a","b"],"id":"7","jti":"t","sub":"jane"}: oidc:jane ["oidc:a", "oidc:b"] uid=7 {"authentication.kubernetes.io/credential-id": ["JTI=t"]}
                {"groups":"one","id":"7","sub":"jane"}: oidc:jane ["oidc:one"] uid=7
                {"id":"7","sub":"jane"}: oidc:jane [] uid=7
                {"sub":"jane"}: oidc: parse uid claim "id": claim not present
                {"id":"7","sub":1}: oidc: parse username claims "sub": json: cannot unmarshal number into Go value of type string
                {"groups":{"a":1},"id":"7","sub":"jane"}: oidc: parse groups claim "groups": json: cannot unmarshal object into Go value of type string
                {"groups":[1],"id":"7","sub":"jane"}: oidc: parse groups claim "groups": json: cannot unmarshal array into Go value of type string
            "#]],
        )
        .await;
    house
        .check(
            "claimMappings:\n  username: {claim: email, prefix: \"\"}\nclaimValidationRules:\n- {claim: hd, requiredValue: example.com}",
            &[
                json!({"email": "j@example.com", "hd": "example.com"}),
                json!({"email": "j@example.com", "hd": "example.com", "email_verified": true}),
                json!({"email": "j@example.com", "hd": "example.com", "email_verified": false}),
                json!({"email": "j@example.com", "hd": "example.com", "email_verified": "yes"}),
                json!({"email": "j@example.com"}),
                json!({"email": "j@example.com", "hd": "evil.com"}),
                json!({"email": "j@example.com", "hd": 5}),
            ],
            expect![[r#"
                {"email":"j@example.com","hd":"example.com"}: j@example.com []
                {"email":"j@example.com","email_verified":true,"hd":"example.com"}: j@example.com []
                {"email":"j@example.com","email_verified":false,"hd":"example.com"}: oidc: email not verified
                {"email":"j@example.com","email_verified":"yes","hd":"example.com"}: oidc: parse 'email_verified' claim: json: cannot unmarshal string into Go value of type bool
                {"email":"j@example.com"}: oidc: required claim hd not present in ID token
                {"email":"j@example.com","hd":"evil.com"}: oidc: required claim hd value does not match. Got = evil.com, want = example.com
                {"email":"j@example.com","hd":5}: oidc: parse claim hd: json: cannot unmarshal number into Go value of type string
            "#]],
        )
        .await;
    house
        .check(
            "claimMappings:
  username: {expression: \"claims.email_verified ? 'user:' + claims.email : ''\"}
  groups: {expression: \"dyn(claims.roles).map(r, 'role:' + r)\"}
  uid: {expression: claims.sub}
  extra:
  - {key: example.com/team, valueExpression: \"claims.?team.orValue('')\"}
  - {key: example.com/nested, valueExpression: \"has(claims.org) ? claims.org['unit-name'] : []\"}
claimValidationRules:
- {expression: \"claims.exp - claims.iat <= 7200.0\", message: too long}
userValidationRules:
- {expression: \"!user.username.startsWith('user:system:')\", message: reserved}
- {expression: \"user.groups.all(g, g != 'role:root')\", message: no root}",
            &[
                json!({"email": "j@e", "email_verified": true, "roles": ["x", "y"], "sub": "7", "iat": NOW, "team": "t"}),
                json!({"email": "j@e", "email_verified": true, "roles": [], "sub": "7", "iat": NOW, "org": {"unit-name": ["u", ""]}}),
                json!({"email": "j@e", "email_verified": false, "roles": [], "sub": "7", "iat": NOW}),
                json!({"email": "j@e", "email_verified": true, "sub": "7", "iat": NOW}),
                json!({"email": "j@e", "email_verified": true, "roles": [1], "sub": "7", "iat": NOW}),
                json!({"email": "j@e", "email_verified": true, "roles": [], "sub": 7, "iat": NOW}),
                json!({"email": "j@e", "email_verified": true, "roles": [], "sub": "7", "iat": NOW - 3601}),
                json!({"email": "system:x", "email_verified": true, "roles": [], "sub": "7", "iat": NOW}),
                json!({"email": "j@e", "email_verified": true, "roles": ["root"], "sub": "7", "iat": NOW}),
            ],
            expect![[r#"
                {"email":"j@e","email_verified":true,"iat":1800000000,"roles":["x","y"],"sub":"7","team":"t"}: user:j@e ["role:x", "role:y"] uid=7 {"example.com/team": ["t"]}
                {"email":"j@e","email_verified":true,"iat":1800000000,"org":{"unit-name":["u",""]},"roles":[],"sub":"7"}: user:j@e [] uid=7 {"example.com/nested": ["u"]}
                {"email":"j@e","email_verified":false,"iat":1800000000,"roles":[],"sub":"7"}: oidc: empty username via CEL expression is not allowed
                {"email":"j@e","email_verified":true,"iat":1800000000,"sub":"7"}: oidc: error evaluating group claim expression: expression 'dyn(claims.roles).map(r, 'role:' + r)' resulted in error: no such key: roles
                {"email":"j@e","email_verified":true,"iat":1800000000,"roles":[1],"sub":"7"}: oidc: error evaluating group claim expression: expression 'dyn(claims.roles).map(r, 'role:' + r)' resulted in error: no such overload
                {"email":"j@e","email_verified":true,"iat":1800000000,"roles":[],"sub":7}: oidc: error evaluating uid claim expression: uid claim expression must return a string
                {"email":"j@e","email_verified":true,"iat":1799996399,"roles":[],"sub":"7"}: oidc: error evaluating claim validation expression: validation expression 'claims.exp - claims.iat <= 7200.0' failed: too long
                {"email":"system:x","email_verified":true,"iat":1800000000,"roles":[],"sub":"7"}: oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith('user:system:')' failed: reserved
                {"email":"j@e","email_verified":true,"iat":1800000000,"roles":["root"],"sub":"7"}: oidc: error evaluating user info validation rule: validation expression 'user.groups.all(g, g != 'role:root')' failed: no root
            "#]],
        )
        .await;
}

#[tokio::test]
async fn tokens_are_verified() {
    let house = House::new().await;
    let url = house.provider.url().to_owned();
    house
        .check(
            SUBJECT,
            &[
                json!({"sub": "a"}),
                json!({"sub": "a", "aud": ["x", "client"]}),
                json!({"sub": "a", "aud": ["x"]}),
                json!({"sub": "a", "aud": null}),
                json!({"sub": "a", "exp": NOW - 1}),
                json!({"sub": "a", "exp": null}),
                json!({"sub": "a", "exp": "soon"}),
                json!({"sub": "a", "nbf": NOW + 60}),
                json!({"sub": "a", "nbf": NOW + 61}),
                json!({"sub": "a", "iss": "https://other"}),
                json!({"sub": "a", "_claim_names": {"x": "y"}}),
            ],
            expect![[r#"
                {"sub":"a"}: a []
                {"aud":["x","client"],"sub":"a"}: a []
                {"aud":["x"],"sub":"a"}: oidc: verify token: oidc: expected audience "client" got ["x"]
                {"aud":null,"sub":"a"}: oidc: verify token: oidc: expected audience "client" got []
                {"exp":1799999999,"sub":"a"}: oidc: verify token: oidc: token is expired (Token Expiry: 2027-01-15 07:59:59 +0000 UTC)
                {"exp":null,"sub":"a"}: oidc: verify token: oidc: token is expired (Token Expiry: 0001-01-01 00:00:00 +0000 UTC)
                {"exp":"soon","sub":"a"}: oidc: verify token: oidc: failed to unmarshal claims: parsing date "soon": not a number
                {"nbf":1800000060,"sub":"a"}: a []
                {"nbf":1800000061,"sub":"a"}: oidc: verify token: oidc: current time 2027-01-15 08:00:00 +0000 UTC before the nbf (not before) time: 2027-01-15 08:01:01 +0000 UTC
                {"iss":"https://other","sub":"a"}: not known
                {"_claim_names":{"x":"y"},"sub":"a"}: oidc: verify token: oidc: source does not exist
            "#]],
        )
        .await;
    let issuers = house.ready(&house.text("", SUBJECT)).await;
    let good = claims(&url, json!({"sub": "a"}));
    let stranger = Key::new("RS256");
    let elliptic = Key::new("ES256");
    let mut said = String::new();
    for (what, token) in [
        ("a key that is not published", stranger.token("k", &good)),
        ("an id that is not published", house.key.token("other", &good)),
        ("no id", house.key.token("", &good)),
        ("another kind of key under the id", elliptic.token("k", &good)),
        ("no token", "abc".into()),
        ("a token of four parts", format!("{}.x", house.key.token("k", &good))),
    ] {
        said.push_str(&format!("{what}: {}\n", house.ask(&issuers, &token).await));
    }
    let whole = house.key.token("k", &good);
    let unsigned = house.ask(&issuers, &whole[..=whole.rfind('.').unwrap()]).await;
    said.push_str(&format!("no signature: {unsigned}\n"));
    expect![[r#"
        a key that is not published: oidc: verify token: failed to verify signature: failed to verify id token signature
        an id that is not published: oidc: verify token: failed to verify signature: failed to verify id token signature
        no id: a []
        another kind of key under the id: oidc: verify token: failed to verify signature: failed to verify id token signature
        no token: not known
        a token of four parts: not known
        no signature: oidc: verify token: failed to verify signature: failed to verify id token signature
    "#]].assert_eq(&said);
}

#[tokio::test]
async fn every_algorithm_of_upstream_is_known() {
    let house = House::new().await;
    let issuers = house.ready(&house.text("", SUBJECT)).await;
    let keys: Vec<(&str, Key)> = ALGORITHMS.iter().map(|a| (*a, Key::new(a))).collect();
    house.provider.publish(&keys.iter().map(|(id, key)| (*id, key)).collect::<Vec<_>>());
    for (id, key) in &keys {
        let token = key.token(id, &claims(house.provider.url(), json!({"sub": id})));
        assert_eq!(house.ask(&issuers, &token).await, format!("{id} []"));
    }
}

#[tokio::test]
async fn keys_are_fetched_when_they_are_needed() {
    let house = House::new().await;
    house.provider.published.lock().unwrap().cache_control = "public, max-age=600".into();
    let issuers = house.ready(&house.text("", SUBJECT)).await;
    let token = |key: &Key, id: &str| key.token(id, &claims(house.provider.url(), json!({"sub": id})));
    assert_eq!(house.provider.fetched("/keys"), 0);
    for _ in 0..2 {
        assert_eq!(house.ask(&issuers, &token(&house.key, "k")).await, "k []");
    }
    assert_eq!(house.provider.fetched("/keys"), 1);
    // A key that came since is not looked for while the provider said the others hold.
    let new = Key::new("ES384");
    house.provider.publish(&[("new", &new)]);
    let refused = "oidc: verify token: failed to verify signature: failed to verify id token signature";
    assert_eq!(house.ask(&issuers, &token(&new, "new")).await, refused);
    assert_eq!(house.provider.fetched("/keys"), 1);
    house.clock.advance(Duration::from_secs(571));
    assert_eq!(house.ask(&issuers, &token(&new, "new")).await, "new []");
    assert_eq!(house.ask(&issuers, &token(&house.key, "k")).await, refused);
    assert_eq!(house.provider.fetched("/keys"), 2);
    // While the provider cannot be reached, the keys that are known do.
    house.clock.advance(Duration::from_secs(1200));
    house.provider.published.lock().unwrap().pages.insert("/keys".into(), (500, "down".into()));
    assert_eq!(house.ask(&issuers, &token(&new, "new")).await, "new []");
    assert_eq!(
        house.ask(&issuers, &token(&house.key, "k")).await,
        "oidc: verify token: failed to verify signature: fetching keys oidc: get keys failed: 500 Internal Server Error down"
    );
    let text = house.metrics.render();
    for (name, labels) in [
        ("jwks_fetch_last_timestamp_seconds", "result=\"success\""),
        ("jwks_fetch_last_timestamp_seconds", "result=\"failure\""),
        ("jwks_fetch_last_key_set_info", "hash=\"sha256:"),
        ("latency_seconds_count", "result=\"success\""),
    ] {
        let name = format!("apiserver_authentication_jwt_authenticator_{name}{{");
        assert!(text.lines().any(|l| l.starts_with(&name) && l.contains(labels)), "{name} {labels}\n{text}");
    }
}

#[tokio::test]
async fn providers_are_found_where_the_file_says() {
    let house = House::new().await;
    let url = house.provider.url().to_owned();
    house.provider.discovery("/elsewhere", &url);
    house.provider.published.lock().unwrap().pages.remove("/.well-known/openid-configuration");
    let issuers = house.ready(&house.text(&format!("discoveryURL: {url}/elsewhere"), SUBJECT)).await;
    let token = house.key.token("k", &claims(&url, json!({"sub": "a"})));
    assert_eq!(house.ask(&issuers, &token).await, "a []");
    // One that is somebody else is not taken, and asked again after a while.
    house.provider.discovery("/.well-known/openid-configuration", "https://somebody.else");
    let issuers = house.issuers(&house.text("", SUBJECT));
    while house.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.ask(&issuers, &token).await, "oidc: authenticator not initialized");
    house.provider.discovery("/.well-known/openid-configuration", &url);
    house.clock.advance(Duration::from_secs(10));
    issuers.ready().await;
    assert_eq!(house.ask(&issuers, &token).await, "a []");
}

#[tokio::test]
async fn claims_may_lie_elsewhere() {
    let house = House::new().await;
    let url = house.provider.url().to_owned();
    let rest =
        "claimMappings:\n  username: {claim: sub, prefix: \"\"}\n  groups: {claim: groups, prefix: \"\"}";
    let issuers = house.ready(&house.text("", rest)).await;
    let other = claims(&url, json!({"groups": ["far"]}));
    house.provider.page("/groups", house.key.token("k", &other));
    let distributed = json!({
        "sub": "a",
        "_claim_names": {"groups": "src"},
        "_claim_sources": {"src": {"endpoint": format!("{url}/groups"), "access_token": "x"}},
    });
    let token = house.key.token("k", &claims(&url, distributed));
    // Of the issuer of the other token it has to be found out first who it is.
    let first = house.ask(&issuers, &token).await;
    assert_eq!(
        first,
        "oidc: could not expand distributed claims: verifying untrusted issuer ISSUER failed: verifier not initialized for issuer: \"ISSUER\""
    );
    let mut said = first.clone();
    while said == first {
        tokio::task::yield_now().await;
        said = house.ask(&issuers, &token).await;
    }
    assert_eq!(said, "a [\"far\"]");
    house.provider.published.lock().unwrap().pages.remove("/groups");
    assert_eq!(
        house.ask(&issuers, &token).await,
        "oidc: could not expand distributed claims: while getting distributed claim \"groups\": error while getting distributed claim JWT: 404 Not Found"
    );
}

#[tokio::test]
async fn a_new_configuration_takes_the_place_of_the_old() {
    let house = House::new().await;
    let issuers = Agnostic {
        inner: Arc::new(house.ready(&house.text("", SUBJECT)).await),
        audiences: ["api".to_owned()].into(),
    };
    let token = house.key.token("k", &claims(house.provider.url(), json!({"sub": "a", "email": "b"})));
    let ask = async || house.ask(&issuers.inner, &token).await;
    assert_eq!(ask().await, "a []");
    let new = house.text("", "claimMappings:\n  username: {claim: email, prefix: 'x:'}");
    issuers.inner.reload(&new).await.unwrap();
    assert_eq!(ask().await, "x:b []");
    assert_eq!(issuers.inner.reload("").await, Err(ReloadError::Wrong("empty config data".into())));
    let anonymous = format!("{new}\nanonymous: {{enabled: true}}\n");
    assert_eq!(
        issuers.inner.reload(&anonymous).await,
        Err(ReloadError::Wrong("anonymous: Forbidden: changed from initial configuration file".into()))
    );
    let none = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n";
    issuers.inner.reload(none).await.unwrap();
    assert_eq!(ask().await, "not known");
    // Who is not audience-aware knows tokens for the API server only.
    issuers.inner.reload(&new).await.unwrap();
    let known = issuers.authenticate(&token, &["api".to_owned(), "x".to_owned()]).await.unwrap().unwrap();
    assert_eq!(known.audiences, ["api"]);
    assert_eq!(issuers.authenticate(&token, &["x".to_owned()]).await, Ok(None));
    assert!(house.clock.now().as_second() == NOW);
}
