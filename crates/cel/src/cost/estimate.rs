//! The static estimate: what an expression can cost at least and at most, by the sizes that its variables can
//! have. Whether a CRD is accepted depends on these numbers, so they are upstream's, oddities included.

use std::collections::HashMap;
use std::sync::Arc;

use super::{LIST, MAP, OBJECT};
use crate::ast::{ACCUMULATOR, Comprehension, Expr, Id, Kind, Literal};
use crate::check::Facts;
use crate::schema::{DeclKind, DeclType};
use crate::types::Type;

mod calls;

/// From so much to so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

/// A range of costs.
pub type CostEstimate = Range;
/// A range of sizes.
pub type SizeEstimate = Range;

impl Range {
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) const fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

fn scaled(value: u64, factor: f64) -> u64 {
    let product = (value as f64 * factor).ceil();
    if product >= 18_446_744_073_709_551_616.0 { u64::MAX } else { product as u64 }
}

/// Knows the sizes that the parts of variables can have.
pub trait SizeEstimator {
    /// The size at the end of a path: a variable, then fields, `@items`, `@keys` or `@values`.
    fn size(&self, path: &[Arc<str>]) -> Option<SizeEstimate>;
}

/// Nothing is known.
impl SizeEstimator for () {
    fn size(&self, _path: &[Arc<str>]) -> Option<SizeEstimate> {
        None
    }
}

/// By the declared type of the variable, whichever variable it is.
impl SizeEstimator for DeclType {
    fn size(&self, path: &[Arc<str>]) -> Option<SizeEstimate> {
        let (_, way) = path.split_first()?;
        let mut at = self;
        for step in way {
            at = match (&**step, &at.kind) {
                ("@items" | "@values", _) => at.element()?,
                ("@keys", DeclKind::Map(keys, _)) => keys,
                (field, DeclKind::Object(fields)) => fields.get(field)?,
                _ => return None,
            };
        }
        Some(SizeEstimate { min: 0, max: at.max_elements as u64 })
    }
}

/// Estimates.
pub(crate) fn estimate(expr: &Expr, facts: &Facts, sizes: &dyn SizeEstimator) -> CostEstimate {
    let mut coster = Coster {
        facts,
        sizes,
        paths: HashMap::new(),
        computed: HashMap::new(),
        entries: HashMap::new(),
        locals: HashMap::new(),
    };
    coster.cost(expr)
}

type Path = Vec<Arc<str>>;

/// What is known of the keys and values of a list or map.
#[derive(Clone, Copy, Debug)]
struct Entries {
    list: bool,
    key: SizeEstimate,
    value: SizeEstimate,
}

impl Entries {
    fn union(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (one, other) = (one?, other?);
        Some(Self { list: one.list, key: one.key.union(other.key), value: one.value.union(other.value) })
    }
}

#[derive(Clone, Debug)]
struct Local {
    path: Path,
    size: Option<SizeEstimate>,
    entries: Option<Entries>,
}

struct Coster<'c> {
    facts: &'c Facts,
    sizes: &'c dyn SizeEstimator,
    paths: HashMap<Id, Path>,
    computed: HashMap<Id, SizeEstimate>,
    entries: HashMap<Id, Entries>,
    locals: HashMap<Arc<str>, Vec<Local>>,
}

/// An expression, or the elements of one, to those who estimate calls.
struct Operand<'e> {
    path: Path,
    of: Type,
    expr: Option<&'e Expr>,
    size: Option<SizeEstimate>,
}

struct CallEstimate {
    cost: CostEstimate,
    size: Option<SizeEstimate>,
}

fn with(mut path: Path, step: &str) -> Path {
    path.push(step.into());
    path
}

impl Coster<'_> {
    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Unspecified | Kind::Literal(_) => CostEstimate::default(),
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                CostEstimate::fixed(1)
            }
            Kind::Select { operand, test_only: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.kind_of(operand), Type::Map(..) | Type::Object(_) | Type::Param(_)) {
                    sum = sum.plus(CostEstimate::fixed(1));
                }
                let path = with(self.path(operand), field);
                self.paths.insert(expr.id, path);
                sum
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(elements) => {
                let mut sum = CostEstimate::default();
                let mut size = SizeEstimate { min: if elements.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for element in elements {
                    sum = sum.plus(self.cost(&element.value));
                    size = size.union(self.size_or_unknown(&element.value));
                }
                let entries = Entries { list: true, key: SizeEstimate::fixed(1), value: size };
                self.entries.insert(expr.id, entries);
                sum.plus(CostEstimate::fixed(LIST))
            }
            Kind::Map(entries) => {
                let mut sum = CostEstimate::default();
                let none = SizeEstimate { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut keys, mut values) = (none, none);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    keys = keys.union(self.size_or_unknown(&entry.key));
                    values = values.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entries { list: false, key: keys, value: values });
                sum.plus(CostEstimate::fixed(MAP))
            }
            Kind::Struct { fields, .. } => {
                let sum = fields
                    .iter()
                    .fold(CostEstimate::default(), |sum, field| sum.plus(self.cost(&field.value)));
                sum.plus(CostEstimate::fixed(OBJECT))
            }
            Kind::Comprehension(fold) if is_binding(fold) => self.binding(expr, fold),
            Kind::Comprehension(fold) => self.fold(expr, fold),
        }
    }

    fn kind_of(&self, expr: &Expr) -> &Type {
        self.facts.kind_of(expr.id)
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.get(name)?.last()
    }

    fn push(&mut self, name: &Arc<str>, local: Local) {
        self.locals.entry(name.clone()).or_default().push(local);
    }

    fn pop(&mut self, name: &str) {
        if let Some(stack) = self.locals.get_mut(name) {
            stack.pop();
        }
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn operand<'e>(&mut self, expr: &'e Expr) -> Operand<'e> {
        let mut path = self.path(expr);
        if path.first().is_some_and(|first| matches!(&**first, ACCUMULATOR | "@result")) {
            path.clear();
        }
        let size = self.size(expr);
        Operand { path, of: self.kind_of(expr).clone(), expr: Some(expr), size }
    }

    fn size(&mut self, expr: &Expr) -> Option<SizeEstimate> {
        if let Some(known) = self.computed.get(&expr.id) {
            return Some(*known);
        }
        let literal = match &expr.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List(elements) => Some(elements.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = literal {
            return Some(SizeEstimate::fixed(size as u64));
        }
        let path = self.path(expr);
        if let Some(size) = self.sizes.size(&path) {
            self.computed.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.kind_of(expr)) {
            return Some(SizeEstimate::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> SizeEstimate {
        self.size(expr).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        if let Some(known) = self.entries.get(&expr.id) {
            return Some(*known);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    fn copy(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.computed.insert(to.id, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> CostEstimate {
        if let ("dyn", [arg]) = (function, args) {
            let cost = self.cost(arg);
            self.copy(expr, arg);
            return CostEstimate::fixed(1).plus(cost);
        }
        let mut costs = Vec::with_capacity(args.len());
        let mut operands = Vec::with_capacity(args.len());
        for arg in args {
            costs.push(self.cost(arg));
            operands.push(self.operand(arg));
        }
        let overloads = self.facts.overloads(expr.id).to_vec();
        if overloads.is_empty() {
            return CostEstimate::default();
        }
        let mut sum = CostEstimate::default();
        let mut receiver = None;
        if let Some(target) = target {
            sum = self.cost(target);
            receiver = Some(self.operand(target));
        }
        let mut total = CostEstimate { min: u64::MAX, max: 0 };
        let mut size: Option<SizeEstimate> = None;
        for overload in overloads {
            let call = self.overload(expr, function, overload, receiver.as_ref(), &operands, &costs);
            total = total.union(call.cost);
            size = match (size, call.size) {
                (Some(known), Some(more)) => Some(known.union(more)),
                (known, more) => known.or(more),
            };
            if let (Some(step), Some(first)) = (
                match overload {
                    "index_list" => Some("@items"),
                    "index_map" => Some("@values"),
                    _ => None,
                },
                args.first(),
            ) {
                size = self.entries_of(first).map(|entries| entries.value);
                let path = with(self.path(first), step);
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.computed.insert(expr.id, size);
        }
        sum.plus(total)
    }

    fn binding(&mut self, expr: &Expr, fold: &Comprehension) -> CostEstimate {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_bound(fold);
        sum = sum.plus(self.cost(&fold.result));
        self.pop(&fold.accu);
        self.copy(expr, &fold.result);
        sum
    }

    fn push_bound(&mut self, fold: &Comprehension) {
        let entries = self.entries_of(&fold.init);
        let size = self.size(&fold.init);
        let path = self.path(&fold.init);
        self.push(&fold.accu, Local { path, size, entries });
    }

    fn fold(&mut self, expr: &Expr, fold: &Comprehension) -> CostEstimate {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_bound(fold);
        let entries = self.entries_of(&fold.range);
        let list = entries.map_or_else(|| matches!(self.kind_of(&fold.range), Type::List(_)), |of| of.list);
        let key = entries.map(|entries| entries.key);
        let value = entries.map(|entries| entries.value);
        let path = self.path(&fold.range);
        let local = |step: &str, size| Local { path: with(path.clone(), step), size, entries: None };
        match (&fold.var2, list) {
            (Some(second), true) => {
                self.push(&fold.var, local("@indices", key));
                self.push(second, local("@items", value));
            }
            (Some(second), false) => {
                self.push(&fold.var, local("@keys", key));
                self.push(second, local("@values", value));
            }
            (None, true) => self.push(&fold.var, local("@items", value)),
            (None, false) => self.push(&fold.var, local("@keys", key)),
        }
        let turn = self.cost(&fold.condition);
        let turn = self.cost(&fold.step).plus(turn);
        self.pop(&fold.var);
        if let Some(second) = &fold.var2 {
            self.pop(second);
        }
        sum = sum.plus(self.cost(&fold.result));
        self.pop(&fold.accu);
        let turns = self.size_or_unknown(&fold.range);
        sum = sum.plus(turns.times(turn));
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.computed.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.computed.insert(expr.id, turns);
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }
}

fn is_binding(fold: &Comprehension) -> bool {
    matches!(&fold.range.kind, Kind::List(elements) if elements.is_empty())
        && fold.condition.kind == Kind::Literal(Literal::Bool(false))
        && &*fold.accu != ACCUMULATOR
}

fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        _ => of.unwrap_optional().is_some_and(is_scalar),
    }
}
