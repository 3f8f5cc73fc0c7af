//! Which types may stand for which, and what type variables come to mean by that.

use std::sync::Arc;

use crate::types::Type;

/// What type variables stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping(Vec<(Arc<str>, Type)>);

impl Mapping {
    pub(crate) fn add(&mut self, name: &Arc<str>, to: Type) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = to,
            None => self.0.push((name.clone(), to)),
        }
    }

    fn find(&self, of: &Type) -> Option<&Type> {
        let Type::Param(name) = of else { return None };
        self.0.iter().find(|(known, _)| known == name).map(|(_, to)| to)
    }

    /// Whether the second may be assigned to the first; what variables mean is only kept if so.
    pub(crate) fn assign(&mut self, to: &Type, from: &Type) -> bool {
        self.assign_all(&[to], &[from])
    }

    pub(crate) fn assign_all(&mut self, to: &[&Type], from: &[&Type]) -> bool {
        let mut trial = self.clone();
        let fits = trial.each(to, from);
        if fits {
            *self = trial;
        }
        fits
    }

    fn each(&mut self, to: &[&Type], from: &[&Type]) -> bool {
        to.len() == from.len() && to.iter().zip(from).all(|(to, from)| self.one(to, from))
    }

    fn one(&mut self, to: &Type, from: &Type) -> bool {
        if let Type::Param(name) = from {
            match self.stand_for(to, from, name) {
                (true, _) => return true,
                (false, true) => return false,
                _ => {}
            }
        }
        if let Type::Param(name) = to {
            return self.stand_for(from, to, name).0;
        }
        if to.is_dyn() || from.is_dyn() || matches!(to, Type::Error) || matches!(from, Type::Error) {
            return true;
        }
        if matches!(to, Type::Null) {
            return nullable(from);
        }
        if matches!(from, Type::Null) {
            return nullable(to);
        }
        match to {
            Type::Type(_) => matches!(from, Type::Type(_)),
            Type::Opaque(..) | Type::List(_) | Type::Map(..) => {
                to.same_kind(from)
                    && to.name() == from.name()
                    && self.each(&to.parameters(), &from.parameters())
            }
            _ => from.accepts(to),
        }
    }

    /// Whether `variable` may stand for a type, and whether it already stands for one.
    fn stand_for(&mut self, of: &Type, variable: &Type, name: &Arc<str>) -> (bool, bool) {
        if of == variable {
            return (true, true);
        }
        if let Some(known) = self.find(variable).cloned() {
            if *of == known {
                return (true, true);
            }
            if self.one(of, &known) {
                let general = most_general(of, &known);
                if self.not_within(variable, &general) {
                    self.add(name, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.not_within(variable, of) {
            self.add(name, of.clone());
            return (true, false);
        }
        (false, false)
    }

    fn not_within(&self, variable: &Type, within: &Type) -> bool {
        if variable == within {
            return false;
        }
        match within {
            Type::Param(_) => self.find(within).is_none_or(|known| self.not_within(variable, known)),
            _ => within.parameters().into_iter().all(|inner| self.not_within(variable, inner)),
        }
    }

    /// The type with variables replaced by what they stand for; `open` decides about those that stand for nothing.
    pub(crate) fn substitute(&self, of: &Type, open: Open) -> Type {
        if let Some(known) = self.find(of) {
            return self.substitute(known, open);
        }
        let inner = |of: &Arc<Type>| Arc::new(self.substitute(of, open));
        match of {
            Type::Param(_) if open == Open::Dyn => Type::Dyn,
            Type::Opaque(name, parameters) => {
                Type::Opaque(name.clone(), parameters.iter().map(|of| self.substitute(of, open)).collect())
            }
            Type::List(of) => Type::List(inner(of)),
            Type::Map(key, value) => Type::Map(inner(key), inner(value)),
            Type::Type(Some(of)) => Type::Type(Some(inner(of))),
            _ => of.clone(),
        }
    }
}

/// What becomes of a variable that stands for nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    Keep,
    Dyn,
}

const fn nullable(of: &Type) -> bool {
    matches!(
        of,
        Type::Null
            | Type::Opaque(..)
            | Type::Object(_)
            | Type::Any
            | Type::Dyn
            | Type::Duration
            | Type::Timestamp
    )
}

/// The one of the two that says less.
pub(crate) fn most_general(a: &Type, b: &Type) -> Type {
    if says_no_more(a, b) { a.clone() } else { b.clone() }
}

fn says_no_more(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Param(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Param(_)) || !a.same_kind(b) {
        return false;
    }
    match a {
        Type::Opaque(..) | Type::List(_) | Type::Map(..) => {
            let (mine, theirs) = (a.parameters(), b.parameters());
            a.name() == b.name()
                && mine.len() == theirs.len()
                && mine.iter().zip(theirs).all(|(a, b)| says_no_more(a, b))
        }
        Type::Type(_) => true,
        _ => a == b,
    }
}
