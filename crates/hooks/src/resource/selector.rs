//! CEL expressions that select devices: whether they may stand, and what they may cost.

use crate::Context;
use apimachinery::field::{Error, ErrorList, Path};
use cel::device::{Features, MAX_COST, Sizes, Written};

/// What expressions may be about, and when they were written.
pub(super) type Dialect = (Features, Written);

/// What the gates of a request say of it.
pub(super) fn dialect(context: &Context, written: Written) -> Dialect {
    let on = |gate| (context.gates.0)(gate);
    let features = Features {
        consumable_capacity: on("DRAConsumableCapacity"),
        list_attributes: on("DRAListTypeAttributes"),
    };
    (features, written)
}

/// What is wrong with an expression.
pub(super) fn validate(path: &Path, expression: &str, (features, written): Dialect) -> ErrorList {
    let invalid = |why: String| ErrorList::from(Error::invalid(path, expression, why));
    let checked = match features.check(expression, written) {
        Ok(checked) => checked,
        Err(why) => return invalid(why),
    };
    if let Err(why) = checked.program() {
        return invalid(format!("program instantiation failed: {why}"));
    }
    if checked.estimate(&Sizes).max > MAX_COST {
        return Error::forbidden(path, "too complex, exceeds cost limit").into();
    }
    ErrorList::new()
}
