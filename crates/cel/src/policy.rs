//! What expressions of admission policies see, and the types of it.

use crate::env::Environment;
use crate::schema::DeclType;
use crate::types::Type;
use std::sync::{Arc, LazyLock};

fn strings() -> Arc<DeclType> {
    DeclType::list(DeclType::simple(Type::String), -1)
}

fn string_map() -> Arc<DeclType> {
    DeclType::map(DeclType::simple(Type::String), DeclType::simple(Type::String), -1)
}

fn object(name: &str, fields: &[(&'static str, &Arc<DeclType>)]) -> Arc<DeclType> {
    DeclType::object(name, fields.iter().map(|(name, decl)| (*name, (*decl).clone())))
}

fn request() -> Arc<DeclType> {
    let string = DeclType::simple(Type::String);
    let kind =
        object("kubernetes.GroupVersionKind", &[("group", &string), ("version", &string), ("kind", &string)]);
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[("group", &string), ("version", &string), ("resource", &string)],
    );
    let extra = DeclType::map(string.clone(), strings(), -1);
    let user = object(
        "kubernetes.UserInfo",
        &[("username", &string), ("uid", &string), ("groups", &strings()), ("extra", &extra)],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", &kind),
            ("resource", &resource),
            ("subResource", &string),
            ("requestKind", &kind),
            ("requestResource", &resource),
            ("requestSubResource", &string),
            ("name", &string),
            ("namespace", &string),
            ("operation", &string),
            ("userInfo", &user),
            ("dryRun", &DeclType::simple(Type::Bool)),
            ("options", &DeclType::simple(Type::Dyn)),
        ],
    )
}

fn namespace() -> Arc<DeclType> {
    let string = DeclType::simple(Type::String);
    let (time, int) = (DeclType::simple(Type::Timestamp), DeclType::simple(Type::Int));
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", &strings())]);
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", &string),
            ("type", &string),
            ("lastTransitionTime", &time),
            ("message", &string),
            ("reason", &string),
        ],
    );
    let conditions = DeclType::list(condition, -1);
    let status = object("kubernetes.NamespaceStatus", &[("conditions", &conditions), ("phase", &string)]);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", &string),
            ("generateName", &string),
            ("namespace", &string),
            ("labels", &string_map()),
            ("annotations", &string_map()),
            ("UID", &string),
            ("creationTimestamp", &time),
            ("deletionGracePeriodSeconds", &int),
            ("deletionTimestamp", &time),
            ("generation", &int),
            ("resourceVersion", &string),
            ("finalizers", &strings()),
        ],
    );
    object("kubernetes.Namespace", &[("metadata", &metadata), ("spec", &spec), ("status", &status)])
}

/// What every policy sees, without `params` and `authorizer`.
static BASE: LazyLock<Environment> = LazyLock::new(|| {
    let (request, namespace) = (request(), namespace());
    Environment::kubernetes()
        .declare(&request)
        .declare(&namespace)
        .variable("request", request.celtype.clone())
        .variable("namespaceObject", namespace.celtype.clone())
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
});

/// Which of the variables that are not always there are there: `params` and `authorizer`.
#[derive(Clone, Copy, Debug)]
pub struct Optional {
    pub params: bool,
    pub authorizer: bool,
}

/// The environment of a policy's expressions.
pub fn environment(optional: Optional) -> Environment {
    let mut env = BASE.clone();
    if optional.params {
        env = env.variable("params", Type::Dyn);
    }
    if optional.authorizer {
        env = env
            .variable("authorizer", Type::object("kubernetes.authorization.Authorizer"))
            .variable("authorizer.requestResource", Type::object("kubernetes.authorization.ResourceCheck"));
    }
    env
}

/// The type of a variable of the policy's own, as far as it is kept.
pub fn kept(of: Option<&Type>) -> Arc<DeclType> {
    match of {
        Some(Type::List(element)) => DeclType::list(kept(Some(element)), -1),
        Some(Type::Map(key, value)) => DeclType::map(kept(Some(key)), kept(Some(value)), -1),
        Some(
            of @ (Type::Any
            | Type::Bool
            | Type::Bytes
            | Type::Double
            | Type::Duration
            | Type::Int
            | Type::Null
            | Type::String
            | Type::Timestamp
            | Type::Uint),
        ) => DeclType::simple(of.clone()),
        _ => DeclType::simple(Type::Dyn),
    }
}
