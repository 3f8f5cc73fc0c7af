//! CEL expressions that select devices: whether they may stand, and what they may cost.

use apimachinery::field::{Error, ErrorList, Path};
use cel::device::{ENVIRONMENT, MAX_COST, Sizes};
use cel::types::Type;

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
