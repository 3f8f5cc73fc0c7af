//! The checker: every node gets a type, every call its overloads, every name what it refers to.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Comprehension, Expr, Id, Kind, Literal, operators};
use crate::decls::Function;
use crate::env::Environment;
use crate::source::{Issue, Source};
use crate::types::Type;

mod assign;
mod literals;

use assign::{Mapping, Open, most_general};
pub(crate) use literals::validate;

/// What a name or a call refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Ident(Arc<str>),
    Overloads(Vec<&'static str>),
}

/// What was found out about each node, by id.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) types: Vec<Option<Type>>,
    pub(crate) references: Vec<Option<Reference>>,
}

impl Facts {
    pub(crate) fn kind_of(&self, id: Id) -> &Type {
        self.types.get(id as usize).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }

    pub(crate) fn overloads(&self, id: Id) -> &[&'static str] {
        match self.references.get(id as usize) {
            Some(Some(Reference::Overloads(ids))) => ids,
            _ => &[],
        }
    }
}

/// Checks an expression. Names in it become fully qualified.
pub(crate) fn check(
    expr: &mut Expr,
    env: &Environment,
    source: &Source,
    offsets: &[u32],
    issues: &mut Vec<Issue>,
) -> Facts {
    let mut checker = Checker {
        env,
        source,
        offsets,
        issues,
        types: vec![None; offsets.len()],
        references: vec![None; offsets.len()],
        mapping: Mapping::default(),
        variables: 0,
        scopes: Vec::new(),
    };
    checker.check(expr);
    let Checker { mapping, types, references, .. } = checker;
    let types = types.into_iter().map(|of| of.map(|of| mapping.substitute(&of, Open::Dyn))).collect();
    Facts { types, references }
}

struct Checker<'c> {
    env: &'c Environment,
    source: &'c Source,
    offsets: &'c [u32],
    issues: &'c mut Vec<Issue>,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
    mapping: Mapping,
    /// How many type variables there are.
    variables: u32,
    /// Variables of comprehensions, the innermost last.
    scopes: Vec<(Arc<str>, Type)>,
}

impl Checker<'_> {
    fn report(&mut self, id: Id, message: String) {
        let location = self.source.location(self.offsets[id as usize]);
        self.issues.push(Issue { location, message });
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
        self.set(id, Type::Error);
    }

    fn mismatch(&mut self, id: Id, expected: &Type, actual: &Type) {
        self.report(id, format!("expected type '{}' but found '{}'", expected.checked(), actual.checked()));
    }

    fn set(&mut self, id: Id, of: Type) {
        self.types[id as usize] = Some(of);
    }

    fn get(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone().unwrap_or(Type::Error)
    }

    fn variable(&mut self) -> Type {
        let variable = Type::Param(format!("_var{}", self.variables).into());
        self.variables += 1;
        variable
    }

    fn lookup(&self, name: &str) -> Option<(Arc<str>, Type)> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let local = self.scopes.iter().rev().find(|(known, _)| &**known == name);
        local.cloned().or_else(|| self.env.ident(name).map(|of| (name.into(), of)))
    }

    fn check(&mut self, expr: &mut Expr) {
        match &mut expr.kind {
            Kind::Unspecified => self.set(expr.id, Type::Error),
            Kind::Literal(literal) => {
                let of = match literal {
                    Literal::Null => Type::Null,
                    Literal::Bool(_) => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Uint(_) => Type::Uint,
                    Literal::Double(_) => Type::Double,
                    Literal::String(_) => Type::String,
                    Literal::Bytes(_) => Type::Bytes,
                };
                self.set(expr.id, of);
            }
            Kind::Ident(name) => match self.lookup(name) {
                Some(found) => self.refer(expr, found),
                None => {
                    let name = name.clone();
                    self.undeclared(expr.id, &name);
                }
            },
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List(_) => self.list(expr),
            Kind::Map(_) => self.map(expr),
            Kind::Struct { .. } => self.object(expr),
            Kind::Comprehension(_) => self.comprehension(expr),
        }
    }

    fn refer(&mut self, expr: &mut Expr, (name, of): (Arc<str>, Type)) {
        self.set(expr.id, of);
        self.references[expr.id as usize] = Some(Reference::Ident(name.clone()));
        expr.kind = Kind::Ident(name);
    }

    fn select(&mut self, expr: &mut Expr) {
        // A dotted name may be declared as a whole.
        if let Some(found) = expr.qualified_name().and_then(|name| self.lookup(&name)) {
            return self.refer(expr, found);
        }
        let id = expr.id;
        let Kind::Select { operand, field, test_only } = &mut expr.kind else { return };
        let found = self.select_field(id, operand, field, false);
        let of = if *test_only { Type::Bool } else { found };
        let of = self.mapping.substitute(&of, Open::Keep);
        self.set(id, of);
    }

    fn select_field(&mut self, id: Id, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let of = self.mapping.substitute(&self.get(operand), Open::Keep);
        let inner = of.unwrap_optional();
        let target = inner.unwrap_or(&of);
        let result = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(name) => self.field(id, name, field),
            Type::Param(_) => {
                self.mapping.assign(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Dyn | Type::Any | Type::Error => Type::Dyn,
            other => {
                self.report(id, format!("type '{}' does not support field selection", other.checked()));
                Type::Dyn
            }
        };
        if inner.is_some() || optional { Type::optional(result) } else { result }
    }

    fn field(&mut self, id: Id, object: &str, field: &str) -> Type {
        match self.env.field(object, field) {
            Some(Some(of)) => return of,
            Some(None) => self.report(id, format!("undefined field '{field}'")),
            None => self.report(id, format!("unexpected failed resolution of '{object}'")),
        }
        Type::Error
    }

    fn optional_select(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let Kind::Call { args, .. } = &mut expr.kind else { return };
        let [operand, field] = args.as_mut_slice() else { return };
        let Kind::Literal(Literal::String(name)) = &field.kind else { return };
        let name = name.clone();
        let found = self.select_field(id, operand, &name, true);
        let of = self.mapping.substitute(&found, Open::Keep);
        self.set(id, of);
        self.references[id as usize] = Some(Reference::Overloads(vec!["select_optional_field"]));
    }

    fn call(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let Kind::Call { function, target, args } = &mut expr.kind else { return };
        if &**function == operators::OPT_SELECT {
            return self.optional_select(expr);
        }
        for arg in args.iter_mut() {
            self.check(arg);
        }
        let found =
            |env: &Environment, name: &str| env.function(name.strip_prefix('.').unwrap_or(name)).cloned();
        let Some(receiver) = target else {
            let Some(declared) = found(self.env, function) else {
                let name = function.clone();
                return self.undeclared(id, &name);
            };
            *function = declared.name.into();
            return self.resolve(id, &declared, None, args);
        };
        // `a.b.c()` may be a function of that name without a receiver.
        let qualified = receiver.qualified_name().map(|name| format!("{name}.{function}"));
        if let Some(declared) = qualified.and_then(|name| found(self.env, &name)) {
            *function = declared.name.into();
            *target = None;
            return self.resolve(id, &declared, None, args);
        }
        self.check(receiver);
        match found(self.env, function) {
            Some(declared) => self.resolve(id, &declared, Some(receiver), args),
            None => {
                let name = function.clone();
                self.undeclared(id, &name);
            }
        }
    }

    fn resolve(&mut self, id: Id, function: &Function, target: Option<&Expr>, args: &[Expr]) {
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.get(arg)).collect();
        let types: Vec<&Type> = types.iter().collect();
        if matches!(function.name, operators::AND | operators::OR) {
            let mut wrong = false;
            for (arg, of) in args.iter().zip(&types) {
                if !self.mapping.assign(of, &Type::Bool) {
                    self.mismatch(arg.id, &Type::Bool, of);
                    wrong = true;
                }
            }
            if wrong {
                return self.set(id, Type::Error);
            }
            self.references[id as usize] = Some(Reference::Overloads(vec![function.overloads[0].id]));
            return self.set(id, Type::Bool);
        }
        let mut result: Option<Type> = None;
        let mut chosen = Vec::new();
        for overload in &function.overloads {
            if overload.member != target.is_some() {
                continue;
            }
            let mut fresh = Mapping::default();
            for name in &overload.params {
                let variable = self.variable();
                fresh.add(name, variable);
            }
            let wanted: Vec<Type> =
                overload.args.iter().map(|arg| fresh.substitute(arg, Open::Keep)).collect();
            if !self.mapping.assign_all(&types, &wanted.iter().collect::<Vec<_>>()) {
                continue;
            }
            chosen.push(overload.id);
            let returned = fresh.substitute(&overload.result, Open::Keep);
            let returned = self.mapping.substitute(&returned, Open::Keep);
            match &result {
                None => result = Some(returned),
                Some(known) if !known.is_dyn() && *known != returned => result = Some(Type::Dyn),
                Some(_) => {}
            }
        }
        let Some(result) = result else {
            let shown: Vec<_> =
                types.iter().map(|of| self.mapping.substitute(of, Open::Dyn).checked()).collect();
            let signature = match (target, shown.split_first()) {
                (Some(_), Some((first, rest))) => format!("{first}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = function.name;
            self.report(id, format!("found no matching overload for '{name}' applied to '{signature}'"));
            return self.set(id, Type::Error);
        };
        self.references[id as usize] = Some(Reference::Overloads(chosen));
        self.set(id, result);
    }

    /// What an element that may be missing contributes.
    fn unwrapped(&mut self, expr: &Expr, optional: bool) -> Type {
        let of = self.get(expr);
        if !optional {
            return of;
        }
        match of.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if !of.is_dyn() {
                    self.mismatch(expr.id, &Type::optional(of.clone()), &of);
                }
                of
            }
        }
    }

    /// The type of elements so far and the next. That literals mix none is checked when all else is right.
    fn join(&mut self, known: Option<Type>, next: Type) -> Type {
        let Some(known) = known else { return next };
        if self.mapping.assign(&known, &next) { most_general(&known, &next) } else { Type::Dyn }
    }

    fn list(&mut self, expr: &mut Expr) {
        let Kind::List(elements) = &mut expr.kind else { return };
        let mut of = None;
        for element in elements {
            self.check(&mut element.value);
            let next = self.unwrapped(&element.value, element.optional);
            of = Some(self.join(of, next));
        }
        let of = of.unwrap_or_else(|| self.variable());
        self.set(expr.id, Type::list(of));
    }

    fn map(&mut self, expr: &mut Expr) {
        let Kind::Map(entries) = &mut expr.kind else { return };
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let next = self.get(&entry.key);
            keys = Some(self.join(keys, next));
            self.check(&mut entry.value);
            let next = self.unwrapped(&entry.value, entry.optional);
            values = Some(self.join(values, next));
        }
        let keys = keys.unwrap_or_else(|| self.variable());
        let values = values.unwrap_or_else(|| self.variable());
        self.set(expr.id, Type::map(keys, values));
    }

    fn object(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let Kind::Struct { name, fields } = &mut expr.kind else { return };
        let Some((full, of)) = self.lookup(name) else {
            let name = name.clone();
            return self.undeclared(id, &name);
        };
        *name = full.clone();
        self.references[id as usize] = Some(Reference::Ident(full.clone()));
        let of = match of {
            Type::Type(Some(inner)) if matches!(*inner, Type::Object(_)) => (*inner).clone(),
            Type::Type(Some(inner)) => {
                self.report(id, format!("'{}' is not a message type", inner.name()));
                Type::Error
            }
            other => {
                self.report(id, format!("'{}' is not a type", other.name()));
                Type::Error
            }
        };
        let object = full.to_string();
        self.set(id, of);
        for field in fields {
            self.check(&mut field.value);
            let wanted = self.field(field.id, &object, &field.name);
            let given = self.unwrapped(&field.value, field.optional);
            if !self.mapping.assign(&wanted, &given) {
                self.report(
                    field.id,
                    format!(
                        "expected type of field '{}' is '{}' but provided type is '{}'",
                        field.name,
                        wanted.checked(),
                        given.checked()
                    ),
                );
            }
        }
    }

    fn comprehension(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let Kind::Comprehension(fold) = &mut expr.kind else { return };
        let Comprehension { range, var, var2, accu, init, condition, step, result } = &mut **fold;
        self.check(range);
        self.check(init);
        let range_type = self.mapping.substitute(&self.get(range), Open::Keep);
        let accu_type = self.get(init);
        let before = self.scopes.len();
        self.scopes.push((accu.clone(), accu_type.clone()));
        let (first, second) = match &range_type {
            Type::List(of) if var2.is_some() => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.assign(&Type::Dyn, &range_type);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let shown = other.checked();
                self.report(
                    range.id,
                    format!(
                        "expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((var.clone(), first));
        if let Some(var2) = var2 {
            self.scopes.push((var2.clone(), second));
        }
        self.check(condition);
        self.assert(condition, &Type::Bool);
        self.check(step);
        self.assert(step, &accu_type);
        self.scopes.truncate(before + 1);
        self.check(result);
        self.scopes.truncate(before);
        let of = self.mapping.substitute(&self.get(result), Open::Keep);
        self.set(id, of);
        debug_assert!(&**accu != ACCUMULATOR || self.scopes.len() == before);
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let found = self.get(expr);
        if !self.mapping.assign(wanted, &found) {
            self.mismatch(expr.id, wanted, &found);
        }
    }
}
