//! The expressions of a JWT authenticator: claims in, users and verdicts out.

use super::claims::{Claims, string_list};
use crate::user::User;
use apimachinery::value::Value;
use cel::cost::PER_CALL_LIMIT;
use cel::env::{Checked, Environment};
use cel::program::Program;
use cel::schema::DeclType;
use cel::types::Type;
use cel::value::{Evaluated, LazyMap, List, Map, Val};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// What an expression sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Claims,
    User,
}

/// What an expression may evaluate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Bool,
    Anything,
}

static CLAIMS: LazyLock<Environment> = LazyLock::new(|| {
    let claims = DeclType::map(DeclType::simple(Type::String), DeclType::simple(Type::Any), -1);
    Environment::kubernetes().declare(&claims).variable("claims", claims.celtype.clone())
});

static USER: LazyLock<Environment> = LazyLock::new(|| {
    let string = || DeclType::simple(Type::String);
    let strings = || DeclType::list(string(), -1);
    let user = DeclType::object(
        "kubernetes.UserInfo",
        [
            ("username", string()),
            ("uid", string()),
            ("groups", strings()),
            ("extra", DeclType::map(string(), strings(), -1)),
        ],
    );
    Environment::kubernetes().declare(&user).variable("user", user.celtype.clone())
});

/// An expression that compiled.
#[derive(Debug, Clone)]
pub struct Compiled {
    text: String,
    program: Program,
    checked: Arc<Checked>,
}

impl Compiled {
    /// Compiles an expression, or says why not in upstream's words.
    pub fn new(over: Over, text: &str, wanted: Wanted) -> Result<Self, String> {
        let env = match over {
            Over::Claims => &CLAIMS,
            Over::User => &USER,
        };
        let checked = env.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        if wanted == Wanted::Bool && *checked.output() != Type::Bool {
            return Err("must evaluate to bool".into());
        }
        let program = checked.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        Ok(Compiled { text: text.to_owned(), program, checked: Arc::new(checked) })
    }

    /// Whether the expression selects a claim.
    pub fn selects(&self, claim: &str) -> bool {
        self.checked.selects(Some("claims"), claim)
    }

    fn evaluate<'a>(&self, name: &'static str, of: &'a Node) -> Evaluated<'a> {
        self.program.evaluate(&[(name, of.value())], PER_CALL_LIMIT).result
    }

    fn over_claims<'a>(&self, claims: &'a Node) -> Result<Val<'a>, String> {
        self.evaluate("claims", claims)
            .map_err(|e| format!("expression '{}' resulted in error: {e}", self.text))
    }
}

/// All expressions of an authenticator.
#[derive(Debug, Clone, Default)]
pub struct Mapper {
    pub username: Option<Compiled>,
    pub groups: Option<Compiled>,
    pub uid: Option<Compiled>,
    pub extra: Vec<(String, Compiled)>,
    /// With the message of each.
    pub claim_rules: Vec<(Compiled, String)>,
    pub user_rules: Vec<(Compiled, String)>,
}

/// JSON as upstream shows it to these expressions: every number is a double, and members whose names are no identifiers
/// are found by their escaped names, however deep they lie.
enum Node {
    Leaf(Value),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Node::List(items.iter().map(Node::from).collect()),
            Value::Object(map) => Node::Map(map.iter().map(|(k, v)| (k.to_string(), v.into())).collect()),
            leaf => Node::Leaf(leaf.clone()),
        }
    }
}

impl Node {
    fn value(&self) -> Val<'_> {
        match self {
            Node::Leaf(Value::Number(number)) => Val::Double(number.as_f64().unwrap_or_default()),
            Node::Leaf(leaf) => Val::from(leaf),
            Node::List(items) => Val::List(List::of(items.iter().map(Node::value).collect())),
            Node::Map(_) => Val::Map(Map::lazy(self)),
        }
    }
}

impl LazyMap for Node {
    fn find<'b>(&'b self, key: &str) -> Option<Evaluated<'b>> {
        let Node::Map(members) = self else { return None };
        let plain = cel::escape::unescape(key);
        let found = plain.and_then(|plain| members.get(plain.as_ref()))?;
        Some(Ok(found.value()))
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Node::Map(members) => members.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// The claims of one token, for the expressions over them.
pub(super) struct ClaimsView(Node);

impl ClaimsView {
    pub(super) fn new(claims: &Claims) -> Self {
        ClaimsView(Node::Map(claims.iter().map(|(k, v)| (k.to_string(), v.into())).collect()))
    }
}

impl Mapper {
    pub(super) fn looks_at_claims(&self) -> bool {
        self.username.is_some()
            || self.groups.is_some()
            || self.uid.is_some()
            || !self.extra.is_empty()
            || !self.claim_rules.is_empty()
    }

    pub(super) fn username(&self, claims: &ClaimsView) -> Option<Result<String, String>> {
        let text = text("username", self.username.as_ref()?, claims);
        Some(text.and_then(|name| match name.is_empty() {
            true => Err("oidc: empty username via CEL expression is not allowed".into()),
            false => Ok(name),
        }))
    }

    pub(super) fn uid(&self, claims: &ClaimsView) -> Option<Result<String, String>> {
        Some(text("uid", self.uid.as_ref()?, claims))
    }

    pub(super) fn groups(&self, claims: &ClaimsView) -> Option<Result<Vec<String>, String>> {
        let evaluated = self.groups.as_ref()?.over_claims(&claims.0);
        let groups = evaluated.and_then(|value| string_list(&value));
        Some(groups.map_err(|e| format!("oidc: error evaluating group claim expression: {e}")))
    }

    pub(super) fn extra(&self, claims: &ClaimsView) -> Result<Vec<(String, Vec<String>)>, String> {
        let mut extra = Vec::new();
        for (key, expression) in &self.extra {
            let value = expression.over_claims(&claims.0)?;
            let values = string_list(&value).map_err(|e| {
                format!("oidc: error evaluating extra claim expression: {}: {e}", expression.text)
            })?;
            if !values.is_empty() {
                extra.push((key.clone(), values));
            }
        }
        Ok(extra)
    }

    /// Refuses claims of which a rule does not hold.
    pub(super) fn check_claims(&self, claims: &ClaimsView) -> Result<(), String> {
        let checked = rules(&self.claim_rules, "claims", &claims.0);
        checked.map_err(|e| format!("oidc: error evaluating claim validation expression: {e}"))
    }

    /// Refuses a user of whom a rule does not hold.
    pub(super) fn check_user(&self, user: &User) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = apimachinery::json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        let checked = rules(&self.user_rules, "user", &Node::from(&shown));
        checked.map_err(|e| format!("oidc: error evaluating user info validation rule: {e}"))
    }
}

fn text(what: &str, expression: &Compiled, claims: &ClaimsView) -> Result<String, String> {
    let value = expression.over_claims(&claims.0).and_then(|value| match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("{what} claim expression must return a string")),
    });
    value.map_err(|e| format!("oidc: error evaluating {what} claim expression: {e}"))
}

/// All rules are evaluated before the first that does not hold is named.
fn rules(rules: &[(Compiled, String)], variable: &'static str, of: &Node) -> Result<(), String> {
    let evaluated: Result<Vec<_>, String> = rules
        .iter()
        .map(|(rule, message)| {
            let value = rule.evaluate(variable, of);
            let value = value.map_err(|e| format!("expression '{}' resulted in error: {e}", rule.text))?;
            Ok((rule, message, value))
        })
        .collect();
    for (rule, message, value) in evaluated? {
        match value.as_bool() {
            Some(true) => {}
            Some(false) => return Err(format!("validation expression '{}' failed: {message}", rule.text)),
            None => return Err("validation expression must return a boolean".into()),
        }
    }
    Ok(())
}
