//! Flags of authentication and authorization, with upstream's names, and what they come to.

use crate::settings::{Authentication, Authorization, ServiceAccounts};
use anyhow::{Context as _, Result, bail, ensure};
use apimachinery::time::Duration as ApiDuration;
use apiserver::authn::configuration::{
    Anonymous, AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, Issuer, JwtAuthenticator,
    PrefixedClaimOrExpression,
};
use apiserver::authn::validation::validate;
use apiserver::authz::configuration::{AuthorizationConfiguration, WebhookFlags};
use apiserver::authz::validation::{MODES, load};
use clap::{ArgAction, Args};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// For every command that serves the API.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuthFlags {
    /// File with Authentication Configuration to configure the JWT Token authenticator or the anonymous authenticator.
    /// Mutually exclusive with the --oidc-* flags, and with --anonymous-auth if the file configures it.
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
    /// Enables anonymous requests to the secure port of the API server. They have a username of system:anonymous, and a
    /// group name of system:unauthenticated [default: true].
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set
    )]
    pub anonymous_auth: Option<bool>,
    /// Enable to allow secrets of type 'bootstrap.kubernetes.io/token' in the 'kube-system' namespace to be used for TLS
    /// bootstrapping authentication.
    #[arg(
        long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub enable_bootstrap_token_auth: bool,
    /// If set, the file that will be used to secure the secure port of the API server via token authentication.
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    #[command(flatten)]
    pub oidc: OidcFlags,
    /// File with webhook configuration for token authentication in kubeconfig format.
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// The API version of the authentication.k8s.io TokenReview to send to and expect from the webhook.
    #[arg(long, default_value = "v1beta1")]
    pub authentication_token_webhook_version: String,
    /// The duration to cache responses from the webhook token authenticator.
    #[arg(long, default_value = "2m0s", value_parser = crate::cli::duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Identifiers of the API; the service account issuers if there are none.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// If true, validate ServiceAccount tokens exist in etcd as part of authentication.
    #[arg(
        long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub service_account_lookup: bool,
    /// The maximum validity duration of a token created by the service account token issuer.
    #[arg(long, value_parser = crate::cli::duration)]
    pub service_account_max_token_expiration: Option<Duration>,
    /// Turns on projected service account expiration extension during token generation.
    #[arg(
        long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub service_account_extend_token_expiration: bool,
    /// Path to socket where a external JWT signer is listening. This flag is mutually exclusive with
    /// --service-account-signing-key-file and --service-account-key-file.
    #[arg(long)]
    pub service_account_signing_endpoint: Option<String>,
    /// Ordered list of plug-ins to do authorization on secure port, comma separated: AlwaysAllow, AlwaysDeny, ABAC,
    /// Webhook, RBAC, Node [default: Node,RBAC].
    #[arg(long, value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// File with Authorization Configuration to configure the authorizer chain. Mutually exclusive with
    /// --authorization-mode and --authorization-webhook-*.
    #[arg(long, conflicts_with_all = [
        "authorization_mode", "authorization_webhook_config_file", "authorization_webhook_version",
        "authorization_webhook_cache_authorized_ttl", "authorization_webhook_cache_unauthorized_ttl",
    ])]
    pub authorization_config: Option<PathBuf>,
    /// File with authorization policy in json line by line format, used with --authorization-mode=ABAC.
    #[arg(long)]
    pub authorization_policy_file: Option<PathBuf>,
    /// File with webhook configuration in kubeconfig format, used with --authorization-mode=Webhook.
    #[arg(long)]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// The API version of the authorization.k8s.io SubjectAccessReview to send to and expect from the webhook [default:
    /// v1beta1].
    #[arg(long)]
    pub authorization_webhook_version: Option<String>,
    /// The duration to cache 'authorized' responses from the webhook authorizer [default: 5m0s].
    #[arg(long, value_parser = crate::cli::duration)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// The duration to cache 'unauthorized' responses from the webhook authorizer [default: 30s].
    #[arg(long, value_parser = crate::cli::duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

/// One OpenID issuer.
#[derive(Debug, Clone, Args)]
pub(crate) struct OidcFlags {
    /// The URL of the OpenID issuer, only HTTPS scheme will be accepted.
    #[arg(long)]
    pub oidc_issuer_url: Option<String>,
    /// The client ID for the OpenID Connect client, must be set if oidc-issuer-url is set.
    #[arg(long)]
    pub oidc_client_id: Option<String>,
    /// If set, the OpenID server's certificate will be verified by one of the authorities in the oidc-ca-file, otherwise
    /// the host's root CA set will be used.
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    /// The OpenID claim to use as the user name [default: sub].
    #[arg(long)]
    pub oidc_username_claim: Option<String>,
    /// If provided, all usernames will be prefixed with this value. If not provided, username claims other than 'email'
    /// are prefixed by the issuer URL to avoid clashes. To skip any prefixing, provide the value '-'.
    #[arg(long, allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// If provided, the name of a custom OpenID Connect claim for specifying user groups.
    #[arg(long)]
    pub oidc_groups_claim: Option<String>,
    /// If provided, all groups will be prefixed with this value to prevent conflicts with other authentication
    /// strategies.
    #[arg(long)]
    pub oidc_groups_prefix: Option<String>,
    /// Comma-separated list of allowed JOSE asymmetric signing algorithms [default: RS256].
    #[arg(long, value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
    /// A key=value pair that describes a required claim in the ID Token; may be given several times.
    #[arg(long)]
    pub oidc_required_claim: Vec<String>,
}

impl OidcFlags {
    fn any(&self) -> bool {
        let texts = [
            &self.oidc_issuer_url,
            &self.oidc_client_id,
            &self.oidc_username_claim,
            &self.oidc_username_prefix,
            &self.oidc_groups_claim,
            &self.oidc_groups_prefix,
        ];
        texts.iter().any(|text| text.is_some())
            || self.oidc_ca_file.is_some()
            || !self.oidc_signing_algs.is_empty()
            || !self.oidc_required_claim.is_empty()
    }

    /// The authenticator that the flags describe.
    fn authenticator(&self) -> Result<Option<JwtAuthenticator>> {
        if !self.any() {
            return Ok(None);
        }
        let (Some(url), Some(client)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            bail!(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
            );
        };
        let claim = self.oidc_username_claim.clone().unwrap_or_else(|| "sub".into());
        let prefix = match self.oidc_username_prefix.as_deref() {
            // The issuers of addresses vouch for them; other claims could be the same elsewhere.
            None | Some("") if claim != "email" => format!("{url}#"),
            None | Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
        };
        let groups = self.oidc_groups_claim.clone().filter(|claim| !claim.is_empty());
        let mut rules = Vec::new();
        for pair in &self.oidc_required_claim {
            let (claim, value) = pair.split_once('=').with_context(|| {
                format!("--oidc-required-claim {pair:?}: malformed pair, expect string=string")
            })?;
            rules.push(ClaimValidationRule {
                claim: claim.trim().to_owned(),
                required_value: value.trim().to_owned(),
                ..Default::default()
            });
        }
        let authority = match &self.oidc_ca_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?
            }
            None => String::new(),
        };
        Ok(Some(JwtAuthenticator {
            issuer: Issuer {
                url: url.clone(),
                audiences: vec![client.clone()],
                certificate_authority: authority,
                ..Default::default()
            },
            claim_validation_rules: rules,
            claim_mappings: ClaimMappings {
                username: PrefixedClaimOrExpression { claim, prefix: Some(prefix), ..Default::default() },
                groups: groups.map_or_else(Default::default, |claim| PrefixedClaimOrExpression {
                    claim,
                    prefix: Some(self.oidc_groups_prefix.clone().unwrap_or_default()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            user_validation_rules: Vec::new(),
        }))
    }
}

impl AuthFlags {
    /// Who is it? `issuers` are those of service account tokens.
    pub(crate) fn authentication(&self, issuers: &[String]) -> Result<Authentication> {
        let (mut configuration, mut file) = (AuthenticationConfiguration::default(), None);
        if let Some(path) = &self.authentication_config {
            ensure!(!self.oidc.any(), "authentication-config file and oidc-* flags are mutually exclusive");
            let failed =
                || format!("failed to load authentication configuration from file {:?}", path.display());
            let text = std::fs::read_to_string(path).with_context(failed)?;
            configuration =
                AuthenticationConfiguration::parse(&text).map_err(anyhow::Error::msg).with_context(failed)?;
            file = Some((path.clone(), text));
        } else if let Some(authenticator) = self.oidc.authenticator()? {
            configuration.jwt.push(authenticator);
        }
        let anonymous = match (&configuration.anonymous, self.anonymous_auth) {
            (Some(_), Some(_)) => bail!(
                "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
            ),
            (Some(configured), None) => configured.clone(),
            (None, flag) => {
                let open = self.modes().iter().any(|mode| mode == "AlwaysAllow");
                let enabled = flag.unwrap_or(true);
                if enabled && open {
                    tracing::warn!(
                        "AnonymousAuth is not allowed with the AlwaysAllow authorizer. Resetting AnonymousAuth to false. You should use a different authorizer"
                    );
                }
                Anonymous { enabled: enabled && !open, conditions: Vec::new() }
            }
        };
        if let Some(wrong) = validate(&configuration, issuers).aggregate() {
            bail!("invalid authentication configuration: {wrong}");
        }
        let algorithms = match self.oidc.oidc_signing_algs.as_slice() {
            // A file does not say which algorithms its issuers use: all that are safe.
            [] if file.is_some() => apiserver::authn::oidc::ALGORITHMS.map(str::to_owned).to_vec(),
            [] => vec!["RS256".to_owned()],
            chosen => chosen.to_vec(),
        };
        Ok(Authentication {
            configuration,
            file,
            algorithms,
            anonymous,
            token_file: self.token_auth_file.clone(),
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            webhook: self.authentication_token_webhook_config_file.clone(),
            webhook_version: self.authentication_token_webhook_version.clone(),
            webhook_ttl: self.authentication_token_webhook_cache_ttl,
        })
    }

    /// The service account tokens that these flags are about.
    pub(crate) fn service_accounts(&self, issuers: Vec<String>) -> Result<ServiceAccounts> {
        let mut seen = BTreeSet::new();
        for issuer in &issuers {
            ensure!(!issuer.is_empty(), "service-account-issuer should not be an empty string");
            ensure!(seen.insert(issuer), "service-account-issuer {issuer:?} is already specified");
        }
        let longest = self.service_account_max_token_expiration.filter(|longest| !longest.is_zero());
        if let Some(longest) = longest {
            let bounds = Duration::from_secs(3600)..=Duration::from_secs(1 << 32);
            ensure!(
                bounds.contains(&longest),
                "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds"
            );
        }
        let audiences =
            if self.api_audiences.is_empty() { issuers.clone() } else { self.api_audiences.clone() };
        Ok(ServiceAccounts {
            issuers,
            audiences,
            lookup: self.service_account_lookup,
            longest,
            extends: self.service_account_extend_token_expiration,
        })
    }

    fn modes(&self) -> Vec<String> {
        match (self.authorization_mode.as_slice(), &self.authorization_config) {
            ([], None) => vec!["Node".into(), "RBAC".into()],
            (modes, _) => modes.to_vec(),
        }
    }

    /// May they?
    pub(crate) fn authorization(&self) -> Result<Authorization> {
        let policy_file = self.authorization_policy_file.clone();
        if let Some(path) = &self.authorization_config {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let configuration = load(&text, &BTreeSet::new()).map_err(anyhow::Error::msg)?;
            return Ok(Authorization { configuration, policy_file, file: Some((path.clone(), text)) });
        }
        let modes = self.modes();
        for mode in &modes {
            ensure!(MODES.contains(&mode.as_str()), "authorization-mode {mode:?} is not a valid mode");
        }
        let has = |mode: &str| modes.iter().any(|m| m == mode);
        ensure!(
            modes.iter().collect::<BTreeSet<_>>().len() == modes.len(),
            "authorization-mode {modes:?} has mode specified more than once"
        );
        match (has("ABAC"), &policy_file) {
            (true, None) => bail!("authorization-mode ABAC's authorization policy file not passed"),
            (false, Some(_)) => bail!("cannot specify --authorization-policy-file without mode ABAC"),
            _ => {}
        }
        let hook = &self.authorization_webhook_config_file;
        match (has("Webhook"), hook) {
            (true, None) => bail!("authorization-mode Webhook's authorization config file not passed"),
            (false, Some(_)) => {
                bail!("cannot specify --authorization-webhook-config-file without mode Webhook")
            }
            _ => {}
        }
        let ttl = |ttl: Option<Duration>, default: i64| {
            ttl.map_or(ApiDuration::from_seconds(default), |ttl| {
                ApiDuration::from_nanoseconds(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX))
            })
        };
        let webhook = hook.as_deref().map(|kubeconfig| WebhookFlags {
            kubeconfig,
            version: self.authorization_webhook_version.as_deref().unwrap_or("v1beta1"),
            authorized_ttl: ttl(self.authorization_webhook_cache_authorized_ttl, 300),
            unauthorized_ttl: ttl(self.authorization_webhook_cache_unauthorized_ttl, 30),
        });
        let configuration = AuthorizationConfiguration::of_modes(&modes, webhook.as_ref());
        Ok(Authorization { configuration, policy_file, file: None })
    }
}
