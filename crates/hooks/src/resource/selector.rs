//! CEL expressions that select devices: what they see of a device, and what they may cost.

use apimachinery::field::{Error, ErrorList, Path};
use cel::cost::estimate::{SizeEstimate, SizeEstimator};
use cel::env::Environment;
use cel::schema::DeclType;
use cel::types::Type;
use std::sync::{Arc, LazyLock};

const MAX_COST: u64 = 1_000_000;
const MAX_DOMAIN: i64 = 63;
const MAX_ID: i64 = 32;
const MAX_DRIVER: i64 = 63;
const MAX_ATTRIBUTES: i64 = 32;
const MAX_VALUE: i64 = 64;

/// A device as expressions see it.
static DEVICE: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let text = |max| DeclType::sized("string", Type::String, 2, max);
    let by_name = |value| {
        let inner = DeclType::map(text(MAX_ID), value, MAX_ATTRIBUTES);
        DeclType::map(text(MAX_DOMAIN), inner, MAX_ATTRIBUTES)
    };
    let quantity = DeclType::simple(Type::object("kubernetes.Quantity"));
    DeclType::object(
        "kubernetes.DRADevice",
        [
            ("driver", text(MAX_DRIVER)),
            ("attributes", by_name(DeclType::sized("any", Type::Any, 1, MAX_VALUE))),
            ("capacity", by_name(quantity)),
            ("allowMultipleAllocations", DeclType::sized("bool", Type::Bool, 4, 1)),
        ],
    )
});

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    Environment::kubernetes().declare(&DEVICE).variable("device", DEVICE.celtype.clone()).bindings()
});

/// How large what an expression sees may be: all attributes of a domain alike.
struct Sizes;

impl SizeEstimator for Sizes {
    fn size(&self, path: &[Arc<str>]) -> Option<SizeEstimate> {
        let mut path = path.to_vec();
        if let [_, of, by, name, ..] = path.as_mut_slice()
            && (&**of, &**by) == ("attributes", "@values")
            && !name.starts_with('@')
        {
            *name = by.clone();
        }
        DEVICE.size(&path)
    }
}

/// What is wrong with an expression.
pub(super) fn validate(path: &Path, expression: &str) -> ErrorList {
    let invalid = |why: String| ErrorList::from(Error::invalid(path, expression, why));
    let checked = match ENVIRONMENT.compile(expression) {
        Ok(checked) => checked,
        Err(issues) => return invalid(format!("compilation failed: {issues}")),
    };
    if !matches!(checked.output(), Type::Bool | Type::Any) {
        let found = checked.output();
        return invalid(format!("must evaluate to bool or the unknown type, not {found}"));
    }
    if let Err(why) = checked.program() {
        return invalid(format!("program instantiation failed: {why}"));
    }
    if checked.estimate(&Sizes).max > MAX_COST {
        return Error::forbidden(path, "too complex, exceeds cost limit").into();
    }
    ErrorList::new()
}
