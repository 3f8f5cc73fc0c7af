//! When a plugin is asked: which of a request's two steps, about which operations.

use super::Operation;

/// The two times that plugins are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Admit,
    Validate,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }
}

/// How many places [`place`] knows.
pub(super) const PLACES: usize = 8;

/// A step of an operation, as a number below [`PLACES`].
pub(super) const fn place(step: Step, operation: Operation) -> usize {
    2 * operation as usize + step as usize
}

/// The steps and operations that a plugin has a say in: a set of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When(u8);

impl When {
    pub const ALWAYS: When = When(u8::MAX);

    /// It changes what these operations write, or refuses it.
    pub const fn admit(operations: &[Operation]) -> When {
        When::of(Step::Admit, operations)
    }

    /// It refuses what these operations write.
    pub const fn validate(operations: &[Operation]) -> When {
        When::of(Step::Validate, operations)
    }

    /// It does the one, then the other.
    pub const fn both(operations: &[Operation]) -> When {
        When(When::admit(operations).0 | When::validate(operations).0)
    }

    const fn of(step: Step, operations: &[Operation]) -> When {
        let (mut set, mut i) = (0, 0);
        while i < operations.len() {
            set |= 1 << place(step, operations[i]);
            i += 1;
        }
        When(set)
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_it_was_made_of() {
        let both = When::both(&[Operation::Update, Operation::Connect]);
        let admit = When::admit(&[Operation::Update]);
        for operation in Operation::ALL {
            let (first, second) = (place(Step::Admit, *operation), place(Step::Validate, *operation));
            let wanted = matches!(operation, Operation::Update | Operation::Connect);
            assert_eq!((both.has(first), both.has(second)), (wanted, wanted), "{operation:?}");
            assert_eq!((admit.has(first), admit.has(second)), (*operation == Operation::Update, false));
            assert!(When::ALWAYS.has(first) && When::ALWAYS.has(second));
        }
    }
}
