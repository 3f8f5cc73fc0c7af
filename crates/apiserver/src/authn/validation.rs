//! What must hold of an AuthenticationConfiguration, in upstream's words; what its expressions compile to comes with it.

use super::configuration::{
    AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, Issuer, JwtAuthenticator,
    PrefixedClaimOrExpression, UserValidationRule,
};
use super::oidc::mapping::{Compiled, Mapper, Over, Wanted};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation::is_domain_prefixed_path;
use cel::library::url::Url;
use std::collections::BTreeSet;

const MOST: usize = 64;

/// Everything that is wrong with a configuration. Issuers in `disallowed` are the cluster's own.
pub fn validate(configuration: &AuthenticationConfiguration, disallowed: &[String]) -> ErrorList {
    let root = Path::new("jwt");
    let mut errors = ErrorList::default();
    let jwt = &configuration.jwt;
    if jwt.len() > MOST {
        errors.push(Error::too_many(&root, Some(jwt.len()), MOST));
        return errors;
    }
    let (mut issuers, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
    for (at, authenticator) in jwt.iter().enumerate() {
        let path = root.index(at);
        errors.extend(validate_jwt(authenticator, &path, disallowed).1);
        let (url, discovery) = (&authenticator.issuer.url, &authenticator.issuer.discovery_url);
        if !issuers.insert(url) {
            errors.push(Error::duplicate(&path.child("issuer").child("url"), url));
        }
        if !discovery.is_empty() && !discoveries.insert(discovery) {
            errors.push(Error::duplicate(&path.child("issuer").child("discoveryURL"), discovery));
        }
    }
    if let Some(anonymous) = &configuration.anonymous
        && !anonymous.enabled
        && !anonymous.conditions.is_empty()
    {
        errors.push(Error::invalid(
            &Path::new("anonymous").child("conditions"),
            &anonymous.conditions,
            "enabled should be set to true when conditions are defined",
        ));
    }
    errors
}

/// The expressions of one authenticator, and what is wrong with it.
pub fn validate_jwt(jwt: &JwtAuthenticator, path: &Path, disallowed: &[String]) -> (Mapper, ErrorList) {
    let mut state = State::default();
    issuer(&jwt.issuer, disallowed, &path.child("issuer"), &mut state.errors);
    state.claim_rules(&jwt.claim_validation_rules, &path.child("claimValidationRules"));
    state.mappings(&jwt.claim_mappings, &path.child("claimMappings"));
    state.user_rules(&jwt.user_validation_rules, &path.child("userValidationRules"));
    (state.mapper, state.errors)
}

fn issuer(issuer: &Issuer, disallowed: &[String], path: &Path, errors: &mut ErrorList) {
    if issuer.url.is_empty() {
        errors.push(Error::required(&path.child("url"), ""));
    } else {
        url(&issuer.url, disallowed, &path.child("url"), errors);
    }
    let discovery = &issuer.discovery_url;
    if !discovery.is_empty() {
        let path = path.child("discoveryURL");
        if !issuer.url.is_empty() && issuer.url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            errors.push(Error::invalid(&path, discovery, "discoveryURL must be different from URL"));
        }
        url(discovery, &[], &path, errors);
    }
    audiences(issuer, path, errors);
    if !issuer.certificate_authority.is_empty() {
        let read = pki::pem::certificates(issuer.certificate_authority.as_bytes());
        if !read.is_ok_and(|found| !found.is_empty()) {
            let why = "data does not contain any valid RSA or ECDSA certificates";
            errors.push(Error::invalid(&path.child("certificateAuthority"), "<omitted>", why));
        }
    }
    let egress = &issuer.egress_selector_type;
    if !["", "controlplane", "cluster"].contains(&egress.as_str()) {
        errors.push(Error::invalid(
            &path.child("egressSelectorType"),
            egress,
            "egress selector must be either controlplane or cluster",
        ));
    }
}

fn url(text: &str, disallowed: &[String], path: &Path, errors: &mut ErrorList) {
    let mut refuse = |why: String| errors.push(Error::invalid(path, text, why));
    if disallowed.iter().any(|issuer| issuer == text) {
        let all: BTreeSet<&str> = disallowed.iter().map(String::as_str).collect();
        let all: Vec<&str> = all.into_iter().collect();
        refuse(format!("URL must not overlap with disallowed issuers: [{}]", all.join(" ")));
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(why) => return refuse(why),
    };
    if url.scheme() != "https" {
        refuse("URL scheme must be https".into());
    }
    if url.user().is_some() {
        refuse("URL must not contain a username or password".into());
    }
    if url.query().is_some_and(|query| !query.is_empty()) {
        refuse("URL must not contain a query".into());
    }
    if url.fragment().is_some_and(|fragment| !fragment.is_empty()) {
        refuse("URL must not contain a fragment".into());
    }
}

fn audiences(issuer: &Issuer, path: &Path, errors: &mut ErrorList) {
    let (audiences, policy) = (&issuer.audiences, issuer.audience_match_policy.as_str());
    let (path, policy_path) = (path.child("audiences"), path.child("audienceMatchPolicy"));
    if audiences.is_empty() {
        errors.push(Error::required(&path, format!("at least one {path} is required")));
        return;
    }
    let mut seen = BTreeSet::new();
    for (at, audience) in audiences.iter().enumerate() {
        let path = path.index(at);
        if audience.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        if !seen.insert(audience) {
            errors.push(Error::duplicate(&path, audience));
        }
    }
    if audiences.len() > 1 && policy != "MatchAny" {
        let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
        errors.push(Error::invalid(&policy_path, policy, why));
    }
    if audiences.len() == 1 && !["", "MatchAny"].contains(&policy) {
        let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
        errors.push(Error::invalid(&policy_path, policy, why));
    }
}

/// What was found so far.
#[derive(Default)]
struct State {
    mapper: Mapper,
    errors: ErrorList,
    uses_email: bool,
    uses_email_verified: bool,
}

impl State {
    fn compile(&mut self, over: Over, text: &str, wanted: Wanted, path: &Path) -> Option<Compiled> {
        match Compiled::new(over, text, wanted) {
            Ok(compiled) => Some(compiled),
            Err(why) => {
                self.errors.push(Error::invalid(path, text, why));
                None
            }
        }
    }

    fn claim_rules(&mut self, rules: &[ClaimValidationRule], path: &Path) {
        let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
        for (at, rule) in rules.iter().enumerate() {
            let path = path.index(at);
            let (claim, expression) = (&rule.claim, &rule.expression);
            match (claim.is_empty(), expression.is_empty()) {
                (false, false) => {
                    let why = "claim and expression can't both be set";
                    self.errors.push(Error::invalid(&path, claim, why));
                }
                (true, true) => self.errors.push(Error::required(&path, "claim or expression is required")),
                (false, true) => {
                    if !rule.message.is_empty() {
                        let why = "may not be specified when claim is set";
                        self.errors.push(Error::invalid(&path.child("message"), &rule.message, why));
                    }
                    if !claims.insert(claim) {
                        self.errors.push(Error::duplicate(&path.child("claim"), claim));
                    }
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        let why = "may not be specified when expression is set";
                        let value = &rule.required_value;
                        self.errors.push(Error::invalid(&path.child("requiredValue"), value, why));
                    }
                    let path = path.child("expression");
                    if !expressions.insert(expression) {
                        self.errors.push(Error::duplicate(&path, expression));
                        continue;
                    }
                    let Some(compiled) = self.compile(Over::Claims, expression, Wanted::Bool, &path) else {
                        continue;
                    };
                    self.uses_email_verified |= compiled.selects("email_verified");
                    self.mapper.claim_rules.push((compiled, rule.message.clone()));
                }
            }
        }
    }

    fn mappings(&mut self, mappings: &ClaimMappings, path: &Path) {
        self.mapper.username = self.prefixed(&mappings.username, &path.child("username"), true);
        if let Some(username) = &self.mapper.username {
            self.uses_email |= username.selects("email");
            self.uses_email_verified |= username.selects("email_verified");
        }
        self.mapper.groups = self.prefixed(&mappings.groups, &path.child("groups"), false);
        let uid = &mappings.uid;
        if !uid.claim.is_empty() && !uid.expression.is_empty() {
            let why = "claim and expression can't both be set";
            self.errors.push(Error::invalid(&path.child("uid"), "", why));
        } else if !uid.expression.is_empty() {
            let path = path.child("uid").child("expression");
            self.mapper.uid = self.compile(Over::Claims, &uid.expression, Wanted::Anything, &path);
        }
        let mut keys = BTreeSet::new();
        for (at, mapping) in mappings.extra.iter().enumerate() {
            let path = path.child("extra").index(at);
            let (key, key_path) = (&mapping.key, path.child("key"));
            self.errors.extend(is_domain_prefixed_path(&key_path, key));
            if *key != key.to_lowercase() {
                self.errors.push(Error::invalid(&key_path, key, "must be lowercase"));
            }
            if is_reserved(key) {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                self.errors.push(Error::invalid(&key_path, key, why));
            }
            if !keys.insert(key) {
                self.errors.push(Error::duplicate(&key_path, key));
                continue;
            }
            let path = path.child("valueExpression");
            if mapping.value_expression.is_empty() {
                self.errors.push(Error::required(&path, ""));
                continue;
            }
            let text = &mapping.value_expression;
            let Some(compiled) = self.compile(Over::Claims, text, Wanted::Anything, &path) else { continue };
            self.uses_email_verified |= compiled.selects("email_verified");
            self.mapper.extra.push((key.clone(), compiled));
        }
        if self.uses_email && !self.uses_email_verified {
            self.errors.push(Error::invalid(
                &path.child("username").child("expression"),
                &mappings.username.expression,
                "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
            ));
        }
    }

    /// The expression of a mapping; none if there is none, or anything is wrong with the mapping.
    fn prefixed(
        &mut self,
        mapping: &PrefixedClaimOrExpression,
        path: &Path,
        required: bool,
    ) -> Option<Compiled> {
        let before = self.errors.len();
        let (claim, expression) = (&mapping.claim, &mapping.expression);
        let mut compiled = None;
        if !expression.is_empty() && !claim.is_empty() {
            self.errors.push(Error::invalid(path, "", "claim and expression can't both be set"));
        } else if !expression.is_empty() {
            if let Some(prefix) = &mapping.prefix {
                let why = "may not be specified when expression is set";
                self.errors.push(Error::invalid(&path.child("prefix"), prefix, why));
            }
            let path = path.child("expression");
            compiled = self.compile(Over::Claims, expression, Wanted::Anything, &path);
        } else if !claim.is_empty() {
            if mapping.prefix.is_none() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                self.errors.push(Error::required(&path.child("prefix"), why));
            }
        } else if required {
            self.errors.push(Error::required(path, "claim or expression is required"));
        }
        compiled.filter(|_| self.errors.len() == before)
    }

    fn user_rules(&mut self, rules: &[UserValidationRule], path: &Path) {
        let mut expressions = BTreeSet::new();
        for (at, rule) in rules.iter().enumerate() {
            let path = path.index(at).child("expression");
            if rule.expression.is_empty() {
                self.errors.push(Error::required(&path, ""));
            } else if !expressions.insert(&rule.expression) {
                self.errors.push(Error::duplicate(&path, &rule.expression));
            } else if let Some(compiled) = self.compile(Over::User, &rule.expression, Wanted::Bool, &path) {
                self.mapper.user_rules.push((compiled, rule.message.clone()));
            }
        }
    }
}

/// Whether the domain of a key is Kubernetes' own.
fn is_reserved(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain.strip_suffix(own).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}
