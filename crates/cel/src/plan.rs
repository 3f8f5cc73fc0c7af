//! A checked tree to a plan: names become places, constants are computed, and what has a shortcut takes it.
//! The shape follows upstream's plan, because that is what costs are counted by.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, Literal, operators};
use crate::check::Facts;
use crate::cost::runtime::CallCost;
use crate::decls::{Function, Functions, Overload};
use crate::program::Program;
use crate::re2::Pattern;
use crate::types::Type;
use crate::value::{Error, Key, List, Map, Text, Val};

/// A step of a plan.
#[derive(Debug)]
pub(crate) enum Node {
    Const(Val<'static>),
    Attribute(Box<Attribute>),
    NotStrictlyFalse(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Equal(Box<[Node; 2]>, Equality),
    Call(Box<Call>),
    /// `x in [constants]`
    InSet(Box<Node>, BTreeSet<Key<'static>>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Object(Arc<str>, Vec<(Arc<str>, Node, bool)>),
    Fold(Box<Fold>),
    /// `accu + [element]` in a loop that gathers.
    Append(Box<Node>),
    /// `cel.@mapInsert(accu, …)` in a loop that gathers.
    Insert(Vec<Node>),
    OptionalOr(Box<[Node; 2]>),
    OptionalOrValue(Box<[Node; 2]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Equality {
    Equal,
    Not,
}

/// A function and its arguments.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: Arc<Function>,
    pub(crate) chosen: Option<Arc<Overload>>,
    pub(crate) args: Vec<Node>,
    /// Whether the first argument that fails keeps those after it from being evaluated.
    pub(crate) in_turn: bool,
    pub(crate) cost: CallCost,
    /// The constant pattern of a `matches`, `find` or `findAll`.
    pub(crate) pattern: Option<Pattern>,
}

/// Something, and the way from there.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) root: Root,
    pub(crate) steps: Vec<Step>,
    /// `has(…)`
    pub(crate) test_only: bool,
}

/// Where an attribute begins.
#[derive(Debug)]
pub(crate) enum Root {
    Global(Arc<str>),
    /// A variable of the comprehension so many levels up.
    Local(usize, Variable),
    Conditional(Box<(Node, Attribute, Attribute)>),
    Value(Node),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    Accumulator,
    First,
    Second,
}

/// A field or an index.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) by: By,
    pub(crate) optional: bool,
    pub(crate) test_only: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum By {
    Key(Val<'static>),
    Attribute(Arc<Attribute>),
    Node(Arc<Node>),
}

/// A loop.
#[derive(Debug)]
pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) two: bool,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

/// The variables of one comprehension.
struct Names {
    accu: Arc<str>,
    first: Option<Arc<str>>,
    second: Option<Arc<str>>,
    /// Whether it gathers a list or a map, nobody else holding it.
    gathers: bool,
}

pub(crate) struct Planner<'p> {
    facts: &'p Facts,
    functions: &'p Functions,
    scopes: Vec<Names>,
}

type Planned<T> = Result<T, String>;

/// The conversions that are computed beforehand when their argument is constant.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

impl<'p> Planner<'p> {
    pub(crate) const fn new(facts: &'p Facts, functions: &'p Functions) -> Self {
        Self { facts, functions, scopes: Vec::new() }
    }

    pub(crate) fn program(mut self, expr: &Expr) -> Planned<Program> {
        Ok(Program::new(self.plan(expr)?))
    }

    fn plan(&mut self, expr: &Expr) -> Planned<Node> {
        match &expr.kind {
            Kind::Unspecified => Err("unsupported expr".into()),
            Kind::Literal(literal) => Ok(Node::Const(constant(literal))),
            Kind::Ident(name) => Ok(self.ident(expr, name)),
            Kind::Select { operand, field, test_only } => {
                let mut attribute = self.attribute(operand)?;
                let by = By::Key(Val::String(Text::Shared(field.clone())));
                attribute.push(&Step { by, optional: false, test_only: *test_only });
                attribute.test_only = *test_only;
                Ok(Node::Attribute(Box::new(attribute)))
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(elements) => {
                let planned = elements
                    .iter()
                    .map(|element| Ok((self.plan(&element.value)?, element.optional)))
                    .collect::<Planned<Vec<_>>>()?;
                let constants: Option<Vec<_>> = planned
                    .iter()
                    .map(|(node, optional)| node.constant().filter(|_| !optional).cloned())
                    .collect();
                Ok(constants.map_or(Node::List(planned), |values| Node::Const(Val::List(List::of(values)))))
            }
            Kind::Map(entries) => {
                let planned = entries
                    .iter()
                    .map(|entry| Ok((self.plan(&entry.key)?, self.plan(&entry.value)?, entry.optional)))
                    .collect::<Planned<Vec<_>>>()?;
                let constants = planned.iter().map(|(key, value, optional)| {
                    let key = Key::of(key.constant().filter(|_| !optional)?).ok()?;
                    Some((key, value.constant()?.clone()))
                });
                let constants = constants.collect::<Option<_>>();
                Ok(constants.map_or(Node::Map(planned), |entries| Node::Const(Val::Map(Map::of(entries)))))
            }
            Kind::Struct { name, fields } => {
                let planned = fields
                    .iter()
                    .map(|field| Ok((field.name.clone(), self.plan(&field.value)?, field.optional)))
                    .collect::<Planned<Vec<_>>>()?;
                Ok(Node::Object(name.clone(), planned))
            }
            Kind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn ident(&self, expr: &Expr, name: &Arc<str>) -> Node {
        for (up, names) in self.scopes.iter().rev().enumerate() {
            let variable = if names.accu == *name {
                Variable::Accumulator
            } else if names.first.as_ref() == Some(name) {
                Variable::First
            } else if names.second.as_ref() == Some(name) {
                Variable::Second
            } else {
                continue;
            };
            return Node::attribute(Root::Local(up, variable));
        }
        // The name of a type is that type.
        match self.facts.kind_of(expr.id) {
            Type::Type(Some(of)) if of.name() == &**name => Node::Const(Val::Type((**of).clone())),
            _ => Node::attribute(Root::Global(name.clone())),
        }
    }

    /// The plan of an operand, ready for one more step.
    fn attribute(&mut self, operand: &Expr) -> Planned<Attribute> {
        Ok(self.plan(operand)?.into_attribute())
    }

    fn call(&mut self, expr: &Expr, name: &Arc<str>, target: Option<&Expr>, args: &[Expr]) -> Planned<Node> {
        let mut planned =
            target.into_iter().chain(args).map(|arg| self.plan(arg)).collect::<Planned<Vec<_>>>()?;
        match &**name {
            operators::AND => return Ok(Node::And(planned)),
            operators::OR => return Ok(Node::Or(planned)),
            operators::EQUALS => return pair(planned).map(|both| Node::Equal(both, Equality::Equal)),
            operators::NOT_EQUALS => return pair(planned).map(|both| Node::Equal(both, Equality::Not)),
            operators::CONDITIONAL => return conditional(planned),
            operators::INDEX => return index(planned, false),
            operators::OPT_INDEX | operators::OPT_SELECT => return index(planned, true),
            operators::NOT_STRICTLY_FALSE => return Ok(Node::NotStrictlyFalse(Box::new(planned.remove(0)))),
            operators::ADD if self.appends(&planned) => {
                let list = planned.remove(1);
                return Ok(Node::Append(Box::new(list)));
            }
            "cel.@mapInsert" if self.gathering(&planned[0]) => {
                planned.remove(0);
                return Ok(Node::Insert(planned));
            }
            _ => {}
        }
        let overloads = self.facts.overloads(expr.id);
        let function =
            self.functions.get(&**name).ok_or_else(|| format!("no such overload: {name}"))?.clone();
        let chosen = match overloads {
            [only] => function.overload(only).cloned(),
            _ => None,
        };
        match (&**name, overloads) {
            ("or", ["optional_or_optional"]) => return pair(planned).map(Node::OptionalOr),
            ("orValue", ["optional_orValue_value"]) => return pair(planned).map(Node::OptionalOrValue),
            (operators::IN, ["in_list"]) => {
                if let Some(Val::List(list)) = planned[1].constant() {
                    if list.is_empty() {
                        return Ok(Node::Const(Val::Bool(false)));
                    }
                    if let Some(set) = constant_set(list) {
                        return Ok(Node::InSet(Box::new(planned.remove(0)), set));
                    }
                }
            }
            _ => {}
        }
        if CONVERSIONS.contains(&&**name)
            && let [Node::Const(value)] = planned.as_slice()
        {
            let result = function.call(chosen.as_deref(), std::slice::from_ref(value));
            return result.map(Node::Const).map_err(|error| error.to_string());
        }
        let pattern = match (&**name, planned.get(1).and_then(Node::constant)) {
            ("matches" | "find" | "findAll", Some(Val::String(pattern))) => {
                Some(Pattern::new(name, pattern)?)
            }
            _ => None,
        };
        let in_turn = planned.len() > 2 || (chosen.is_none() && function.overloads.len() > 1);
        let cost = CallCost::of(name, if chosen.is_some() { overloads[0] } else { "" });
        Ok(Node::Call(Box::new(Call { function, chosen, args: planned, in_turn, cost, pattern })))
    }

    /// Whether it is the accumulator of a loop that gathers.
    fn gathering(&self, node: &Node) -> bool {
        let Node::Attribute(attribute) = node else { return false };
        matches!(attribute.root, Root::Local(0, Variable::Accumulator))
            && attribute.steps.is_empty()
            && self.scopes.last().is_some_and(|names| names.gathers)
    }

    fn appends(&self, planned: &[Node]) -> bool {
        let one = match &planned[1] {
            Node::List(elements) => matches!(elements.as_slice(), [(_, false)]),
            Node::Const(Val::List(list)) => list.len() == 1,
            _ => false,
        };
        one && self.gathering(&planned[0])
    }

    fn fold(&mut self, fold: &Comprehension) -> Planned<Node> {
        let range = self.plan(&fold.range)?;
        let init = self.plan(&fold.init)?;
        let gathers = match &init {
            Node::Const(Val::List(list)) => list.is_empty(),
            Node::Const(Val::Map(map)) => map.is_empty(),
            _ => false,
        };
        let first = Some(fold.var.clone());
        self.scopes.push(Names { accu: fold.accu.clone(), first, second: fold.var2.clone(), gathers });
        let condition = self.plan(&fold.condition)?;
        let step = self.plan(&fold.step)?;
        // The variables of the loop are not known to its result.
        if let Some(names) = self.scopes.last_mut() {
            names.first = None;
            names.second = None;
            names.gathers = false;
        }
        let result = self.plan(&fold.result)?;
        self.scopes.pop();
        let two = fold.var2.is_some();
        Ok(Node::Fold(Box::new(Fold { range, two, init, condition, step, result })))
    }
}

impl Node {
    fn attribute(root: Root) -> Self {
        Self::Attribute(Box::new(Attribute { root, steps: Vec::new(), test_only: false }))
    }

    pub(crate) const fn constant(&self) -> Option<&Val<'static>> {
        match self {
            Self::Const(value) => Some(value),
            _ => None,
        }
    }

    fn into_attribute(self) -> Attribute {
        match self {
            Self::Attribute(attribute) => *attribute,
            other => Attribute { root: Root::Value(other), steps: Vec::new(), test_only: false },
        }
    }
}

impl Attribute {
    /// One step further; after a conditional, in both of its branches.
    fn push(&mut self, step: &Step) {
        match &mut self.root {
            Root::Conditional(parts) => {
                parts.1.push(step);
                parts.2.push(step);
            }
            _ => self.steps.push(step.clone()),
        }
    }
}

fn pair(planned: Vec<Node>) -> Planned<Box<[Node; 2]>> {
    Box::<[Node; 2]>::try_from(planned).map_err(|_| "two operands are needed".into())
}

fn conditional(planned: Vec<Node>) -> Planned<Node> {
    let [condition, truthy, falsy] =
        <[Node; 3]>::try_from(planned).map_err(|_| "three operands are needed".to_owned())?;
    let parts = (condition, truthy.into_attribute(), falsy.into_attribute());
    Ok(Node::attribute(Root::Conditional(Box::new(parts))))
}

fn index(planned: Vec<Node>, optional: bool) -> Planned<Node> {
    let [operand, key] = *pair(planned)?;
    let by = match key {
        Node::Const(value) => By::Key(value),
        Node::Attribute(attribute) => By::Attribute(Arc::from(attribute)),
        other => By::Node(Arc::new(other)),
    };
    let mut attribute = operand.into_attribute();
    attribute.push(&Step { by, optional, test_only: false });
    Ok(Node::Attribute(Box::new(attribute)))
}

fn constant(literal: &Literal) -> Val<'static> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(value) => Val::Bool(*value),
        Literal::Int(value) => Val::Int(*value),
        Literal::Uint(value) => Val::Uint(*value),
        Literal::Double(value) => Val::Double(*value),
        Literal::String(text) => Val::String(Text::Shared(text.clone())),
        Literal::Bytes(bytes) => Val::Bytes(bytes.clone()),
    }
}

fn constant_set(list: &List<'static>) -> Option<BTreeSet<Key<'static>>> {
    list.iter().map(|value| set_key(&value.ok()?)).collect()
}

/// A scalar as a key that is the same for equal numbers of whatever kind.
pub(crate) fn set_key<'a>(value: &Val<'a>) -> Option<Key<'a>> {
    Some(match value {
        Val::Double(number) => match crate::value::ops::double_to_int(*number) {
            Some(whole) => Key::Int(whole),
            None => match crate::value::ops::double_to_uint(*number) {
                Some(whole) => Key::Uint(whole),
                None => Key::Double(number.to_bits()),
            },
        },
        Val::Uint(number) => i64::try_from(*number).map_or(Key::Uint(*number), Key::Int),
        Val::Bool(_) | Val::Int(_) | Val::String(_) => Key::of(value).ok()?,
        _ => return None,
    })
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}
