//! `authorizer`: expressions ask who may do what. The host answers.

use std::fmt;
use std::sync::Arc;

use apimachinery::validation::{NameUse, name_is_dns_label, name_is_dns_subdomain};

use crate::decls::Row;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed};

pub(crate) const ROWS: &[Row] = &[
    Row(
        "path",
        "authorizer_path",
        "kubernetes.authorization.Authorizer.(string): kubernetes.authorization.PathCheck",
        path,
    ),
    Row(
        "group",
        "authorizer_group",
        "kubernetes.authorization.Authorizer.(string): kubernetes.authorization.GroupCheck",
        group,
    ),
    Row(
        "serviceAccount",
        "authorizer_serviceaccount",
        "kubernetes.authorization.Authorizer.(string, string): kubernetes.authorization.Authorizer",
        service_account,
    ),
    Row(
        "resource",
        "groupcheck_resource",
        "kubernetes.authorization.GroupCheck.(string): kubernetes.authorization.ResourceCheck",
        resource,
    ),
    Row(
        "subresource",
        "resourcecheck_subresource",
        "kubernetes.authorization.ResourceCheck.(string): kubernetes.authorization.ResourceCheck",
        |args| narrowed(args, |check, value| check.subresource = value),
    ),
    Row(
        "namespace",
        "resourcecheck_namespace",
        "kubernetes.authorization.ResourceCheck.(string): kubernetes.authorization.ResourceCheck",
        |args| narrowed(args, |check, value| check.namespace = value),
    ),
    Row(
        "name",
        "resourcecheck_name",
        "kubernetes.authorization.ResourceCheck.(string): kubernetes.authorization.ResourceCheck",
        |args| narrowed(args, |check, value| check.name = value),
    ),
    Row(
        "fieldSelector",
        "authorizer_fieldselector",
        "kubernetes.authorization.ResourceCheck.(string): kubernetes.authorization.ResourceCheck",
        |args| narrowed(args, |check, value| check.field_selector = value),
    ),
    Row(
        "labelSelector",
        "authorizer_labelselector",
        "kubernetes.authorization.ResourceCheck.(string): kubernetes.authorization.ResourceCheck",
        |args| narrowed(args, |check, value| check.label_selector = value),
    ),
    Row(
        "check",
        "pathcheck_check",
        "kubernetes.authorization.PathCheck.(string): kubernetes.authorization.Decision",
        check,
    ),
    Row(
        "check",
        "resourcecheck_check",
        "kubernetes.authorization.ResourceCheck.(string): kubernetes.authorization.Decision",
        check,
    ),
    Row("errored", "decision_errored", "kubernetes.authorization.Decision.(): bool", |args| {
        Ok(Val::Bool(decision(args)?.error.is_some()))
    }),
    Row("error", "decision_error", "kubernetes.authorization.Decision.(): string", |args| {
        Ok(Val::from(decision(args)?.error.clone().unwrap_or_default()))
    }),
    Row("allowed", "decision_allowed", "kubernetes.authorization.Decision.(): bool", |args| {
        Ok(Val::Bool(decision(args)?.allowed))
    }),
    Row("reason", "decision_reason", "kubernetes.authorization.Decision.(): string", |args| {
        Ok(Val::from(decision(args)?.reason.clone()))
    }),
];

/// What an expression asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of the service account that is asked about; none for the user of the request.
    pub service_account: Option<(String, String)>,
    /// A path, where no resource is asked for.
    pub path: Option<String>,
    /// The verb.
    pub verb: String,
    /// The resource's group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Its subresource.
    pub subresource: String,
    /// Where.
    pub namespace: String,
    /// Which.
    pub name: String,
    /// As written; it may be wrong.
    pub field_selector: String,
    /// As written; it may be wrong.
    pub label_selector: String,
}

/// What the host answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong in deciding.
    pub error: Option<String>,
}

/// Answers for the user of the request.
pub trait Authorizer: Sync {
    /// May it be done?
    fn authorize(&self, question: &Question) -> Decision;
}

/// A question that is being put together, or its answer.
#[derive(Clone)]
pub enum Authorization<'a> {
    /// `authorizer`, for the user or a service account.
    Authorizer(&'a (dyn Authorizer + 'a), Question),
    /// `authorizer.path(…)`
    Path(&'a (dyn Authorizer + 'a), Question),
    /// `authorizer.group(…)`
    Group(&'a (dyn Authorizer + 'a), Question),
    /// `….resource(…)`
    Resource(&'a (dyn Authorizer + 'a), Question),
    /// `….check(…)`
    Decision(Decision),
}

impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

impl<'a> Authorization<'a> {
    pub(crate) const fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// The value of the variable `authorizer`.
    pub fn authorizer(by: &'a (dyn Authorizer + 'a)) -> Val<'a> {
        Self::Authorizer(by, Question::default()).into()
    }

    /// The value of `authorizer.requestResource`: a check of what the request itself is about.
    pub fn request_resource(by: &'a (dyn Authorizer + 'a), about: Question) -> Val<'a> {
        Self::Resource(by, about).into()
    }
}

impl<'a> From<Authorization<'a>> for Val<'a> {
    fn from(of: Authorization<'a>) -> Self {
        Self::Authorization(Arc::new(of))
    }
}

fn parts<'v, 'a>(args: &'v [Val<'a>]) -> Result<(&'v Authorization<'a>, &'v str), Error> {
    match (&args[0], args[1].as_str()) {
        (Val::Authorization(of), Some(text)) => Ok((of, text)),
        _ => Err(NO_OVERLOAD),
    }
}

fn path<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (Authorization::Authorizer(by, question), path) = parts(args)? else { return Err(NO_OVERLOAD) };
    if path.trim().is_empty() {
        return Err(failed("path must not be empty"));
    }
    Ok(Authorization::Path(*by, Question { path: Some(path.into()), ..question.clone() }).into())
}

fn group<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (Authorization::Authorizer(by, question), group) = parts(args)? else { return Err(NO_OVERLOAD) };
    Ok(Authorization::Group(*by, Question { group: group.into(), ..question.clone() }).into())
}

fn service_account<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (Authorization::Authorizer(by, question), namespace) = parts(args)? else { return Err(NO_OVERLOAD) };
    let name = args[2].as_str().ok_or(NO_OVERLOAD)?;
    if !name_is_dns_subdomain(name, NameUse::Whole).is_empty() {
        return Err(failed("Invalid service account name"));
    }
    if !name_is_dns_label(namespace, NameUse::Whole).is_empty() {
        return Err(failed("Invalid service account namespace"));
    }
    let account = Some((namespace.to_owned(), name.to_owned()));
    Ok(Authorization::Authorizer(*by, Question { service_account: account, ..question.clone() }).into())
}

fn resource<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (Authorization::Group(by, question), resource) = parts(args)? else { return Err(NO_OVERLOAD) };
    if resource.trim().is_empty() {
        return Err(failed("resource must not be empty"));
    }
    Ok(Authorization::Resource(*by, Question { resource: resource.into(), ..question.clone() }).into())
}

fn narrowed<'a>(args: &[Val<'a>], set: fn(&mut Question, String)) -> Evaluated<'a> {
    let (Authorization::Resource(by, question), value) = parts(args)? else { return Err(NO_OVERLOAD) };
    let mut question = question.clone();
    set(&mut question, value.into());
    Ok(Authorization::Resource(*by, question).into())
}

fn check<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match parts(args)? {
        (Authorization::Path(by, question) | Authorization::Resource(by, question), verb) => {
            let decision = by.authorize(&Question { verb: verb.into(), ..question.clone() });
            Ok(Authorization::Decision(decision).into())
        }
        _ => Err(NO_OVERLOAD),
    }
}

fn decision<'v>(args: &'v [Val<'_>]) -> Result<&'v Decision, Error> {
    match &args[0] {
        Val::Authorization(of) => match &**of {
            Authorization::Decision(decision) => Ok(decision),
            _ => Err(NO_OVERLOAD),
        },
        _ => Err(NO_OVERLOAD),
    }
}
