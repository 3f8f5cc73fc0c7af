//! What functions there are: their overloads as the checker sees them, and what to run.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::{Type, split_arguments};
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed_with};

/// What an overload does. Arguments are values: errors have ended the evaluation before.
pub type Imp = for<'a> fn(&[Val<'a>]) -> Evaluated<'a>;

/// A line of a library: function, overload, signature (`string.(string): bool` has a receiver), implementation.
#[derive(Clone, Copy, Debug)]
pub struct Row(pub &'static str, pub &'static str, pub &'static str, pub Imp);

/// How the values of a call find their overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// By their types, which are compared with the declared ones.
    Guarded,
    /// The implementation looks at them itself.
    Unguarded,
}

/// An overload.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// The type parameters that occur in it.
    pub(crate) params: Vec<Arc<str>>,
    imp: Imp,
}

/// A function with all its overloads, in the order in which they are tried.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Arc<Overload>>,
    binding: Binding,
}

/// Functions by name.
pub(crate) type Functions = HashMap<&'static str, Arc<Function>>;

impl Overload {
    fn new(row: &Row) -> Self {
        let Row(_, id, signature, imp) = *row;
        let (head, result) = signature.rsplit_once("): ").unwrap_or((signature, "dyn"));
        let (receiver, args) = match head.split_once(".(") {
            Some((receiver, args)) => (Some(receiver), args),
            None => (None, head.trim_start_matches('(')),
        };
        let args: Vec<_> = receiver.into_iter().chain(split_arguments(args)).map(Type::parse).collect();
        let result = Type::parse(result);
        let mut params = Vec::new();
        args.iter().for_each(|arg| collect_params(arg, &mut params));
        collect_params(&result, &mut params);
        Self { id, member: receiver.is_some(), args, result, params, imp }
    }

    fn fits(&self, values: &[Val<'_>]) -> bool {
        values.len() == self.args.len()
            && self.args.iter().zip(values).all(|(arg, value)| accepts(arg, value))
    }
}

fn collect_params(of: &Type, params: &mut Vec<Arc<str>>) {
    match of {
        Type::Param(name) if !params.contains(name) => params.push(name.clone()),
        _ => of.parameters().into_iter().for_each(|inner| collect_params(inner, params)),
    }
}

/// Whether a value may stand where a type is declared; of lists and maps, the first element speaks for all.
fn accepts(declared: &Type, value: &Val<'_>) -> bool {
    match (declared, value) {
        (Type::Dyn | Type::Any | Type::Param(_), _) => true,
        (Type::List(element), Val::List(list)) => match list.get(0) {
            Some(Ok(first)) => accepts(element, &first),
            _ => true,
        },
        (Type::Map(key, element), Val::Map(map)) => match map.keys().first() {
            None => true,
            Some(first) => {
                accepts(key, first)
                    && map.find(first).ok().flatten().is_none_or(|value| accepts(element, &value))
            }
        },
        _ => declared.name() == value.kind().name(),
    }
}

impl Function {
    fn no_overload(&self, values: &[Val<'_>]) -> Error {
        let kinds: Vec<_> = values.iter().map(|value| value.kind().name().to_owned()).collect();
        failed_with(format!("no such overload: {}({})", self.name, kinds.join(", ")))
    }

    /// Runs the overload that the checker chose, or the first that fits the values.
    pub(crate) fn call<'a>(&self, chosen: Option<&Overload>, values: &[Val<'a>]) -> Evaluated<'a> {
        if let Some(overload) = chosen.or_else(|| match self.overloads.as_slice() {
            [only] => Some(only),
            _ => None,
        }) {
            return match self.binding == Binding::Unguarded || overload.fits(values) {
                true => (overload.imp)(values),
                false => Err(self.no_overload(values)),
            };
        }
        if self.binding == Binding::Unguarded {
            let overload = self.overloads.iter().find(|overload| overload.args.len() == values.len());
            return overload.map_or(Err(NO_OVERLOAD), |overload| (overload.imp)(values));
        }
        match self.overloads.iter().find(|overload| overload.fits(values)) {
            Some(overload) => (overload.imp)(values),
            None => Err(self.no_overload(values)),
        }
    }

    /// The overload with an id.
    pub(crate) fn overload(&self, id: &str) -> Option<&Arc<Overload>> {
        self.overloads.iter().find(|overload| overload.id == id)
    }
}

/// Adds a library.
pub(crate) fn add(functions: &mut Functions, rows: &[Row], binding: Binding) {
    for row in rows {
        let function = functions
            .entry(row.0)
            .or_insert_with(|| Arc::new(Function { name: row.0, overloads: Vec::new(), binding }));
        let overload = Overload::new(row);
        if function.overload(overload.id).is_none() {
            let function = Arc::make_mut(function);
            // One library that lets the types be compared makes that safe for all.
            if binding == Binding::Guarded {
                function.binding = binding;
            }
            function.overloads.push(Arc::new(overload));
        }
    }
}
