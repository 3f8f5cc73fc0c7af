//! A compiled expression and its evaluation. What a step costs is counted as upstream counts it, so that the
//! same expression over the same object is cut off at the same point.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::{Attribute, By, Call, Equality, Fold, Node, Root, Step, Variable, set_key};
use crate::value::ops::equal;
use crate::value::{Error, Evaluated, Key, Map, NO_OVERLOAD, Object, Text, Val, failed, failed_with, ops};

/// Where the values of variables come from.
pub trait Activation<'a> {
    /// The value of a variable, if there is one.
    fn resolve(&self, name: &str) -> Option<Val<'a>>;

    /// The field of a variable that is no value as a whole, because its fields are only computed when they are
    /// asked for.
    fn field(&self, _variable: &str, _field: &str) -> Option<Evaluated<'a>> {
        None
    }
}

/// Variables by name; the simplest activation.
impl<'a> Activation<'a> for [(&str, Val<'a>)] {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }
}

impl<'a, const N: usize> Activation<'a> for [(&str, Val<'a>); N] {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        self.as_slice().resolve(name)
    }
}

/// What an evaluation came to.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// The value, or why there is none.
    pub result: Evaluated<'a>,
    /// What it cost.
    pub cost: u64,
}

/// An expression that is ready to be evaluated, by many threads at once.
#[derive(Clone, Debug)]
pub struct Program(Arc<Node>);

/// What one evaluation carries along.
struct Run<'r, 'a> {
    activation: &'r dyn Activation<'a>,
    cost: Cell<u64>,
    limit: u64,
}

/// The variables of one comprehension, and those around it.
struct Scope<'s, 'a> {
    around: Option<&'s Scope<'s, 'a>>,
    fold: &'s Fold,
    variables: RefCell<Variables<'a>>,
}

#[derive(Default)]
struct Variables<'a> {
    accumulator: Option<Evaluated<'a>>,
    first: Option<Evaluated<'a>>,
    second: Option<Evaluated<'a>>,
}

/// An error that `&&`, `||` or a loop may absorb stays inside; exhaustion of the budget does not.
fn soft<T>(result: Result<T, Error>) -> Result<Result<T, Error>, Error> {
    match result {
        Err(Error::CostLimit) => Err(Error::CostLimit),
        other => Ok(other),
    }
}

impl Program {
    pub(crate) fn new(node: Node) -> Self {
        Self(Arc::new(node))
    }

    /// Evaluates it, at a cost of no more than `limit`.
    pub fn evaluate<'a>(&self, activation: &dyn Activation<'a>, limit: u64) -> Outcome<'a> {
        let run = Run { activation, cost: Cell::new(0), limit };
        let result = run.eval(&self.0, None);
        Outcome { result, cost: run.cost.get() }
    }
}

impl<'a> Run<'_, 'a> {
    fn charge(&self, cost: u64) -> Result<(), Error> {
        let total = self.cost.get().saturating_add(cost);
        self.cost.set(total);
        if total > self.limit { Err(Error::CostLimit) } else { Ok(()) }
    }

    fn eval(&self, node: &Node, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attribute(attribute) => self.attribute(attribute, scope),
            Node::NotStrictlyFalse(arg) => {
                let value = soft(self.eval(arg, scope))?;
                self.charge(1)?;
                Ok(Val::Bool(!matches!(value, Ok(Val::Bool(false)))))
            }
            Node::And(terms) => self.logic(terms, false, scope),
            Node::Or(terms) => self.logic(terms, true, scope),
            Node::Equal(both, equality) => self.equality(both, *equality, scope),
            Node::Call(call) => self.call(call, scope),
            Node::InSet(arg, set) => {
                let value = self.eval(arg, scope)?;
                Ok(Val::Bool(set_key(&value).is_some_and(|key| set.contains(&key))))
            }
            Node::List(elements) => self.list(elements, scope),
            Node::Map(entries) => self.map(entries, scope),
            Node::Object(name, fields) => self.object(name, fields, scope),
            Node::Fold(fold) => self.fold(fold, scope),
            Node::Append(list) => self.append(list, scope),
            Node::Insert(args) => self.insert(args, scope),
            Node::OptionalOr(both) => match self.eval(&both[0], scope)? {
                Val::Optional(None) => self.eval(&both[1], scope),
                other => Ok(other),
            },
            Node::OptionalOrValue(both) => match self.eval(&both[0], scope)? {
                Val::Optional(None) => self.eval(&both[1], scope),
                Val::Optional(Some(value)) => Ok((*value).clone()),
                other => Ok(other),
            },
        }
    }

    /// `&&` and `||`: the deciding value wins over errors, on whichever side it stands.
    fn logic(&self, terms: &[Node], decides: bool, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let mut error = None;
        for term in terms {
            match soft(self.eval(term, scope))? {
                Ok(Val::Bool(value)) if value == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => error = error.or(Some(NO_OVERLOAD)),
                Err(wrong) => error = error.or(Some(wrong)),
            }
        }
        error.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn equality(&self, both: &[Node; 2], equality: Equality, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let left = soft(self.eval(&both[0], scope))?;
        let right = soft(self.eval(&both[1], scope))?;
        self.charge(crate::cost::runtime::equality(&left, &right, equality))?;
        let same = equal(&left?, &right?);
        match equality {
            Equality::Equal => same.map(Val::Bool),
            // What cannot be compared is not equal.
            Equality::Not => Ok(Val::Bool(!same.unwrap_or(false))),
        }
    }

    fn call(&self, call: &Call, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(call.args.len());
        let mut error: Option<Error> = None;
        for (at, arg) in call.args.iter().enumerate() {
            match soft(self.eval(arg, scope))? {
                Ok(value) => values.push(value),
                Err(wrong) => {
                    if call.in_turn && at + 1 < call.args.len() {
                        return Err(wrong);
                    }
                    // The cost of the call is charged all the same; an error has the size of a scalar.
                    values.push(Val::Null);
                    error = error.or(Some(wrong));
                }
            }
        }
        let result = match (error, &call.pattern) {
            (Some(error), _) => Err(error),
            (None, Some(pattern)) => pattern.call(&values),
            (None, None) => call.function.call(call.chosen.as_deref(), &values),
        };
        let result = soft(result)?;
        self.charge(call.cost.charge(&values, &result))?;
        result
    }

    fn list(&self, elements: &[(Node, bool)], scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let made = soft(self.elements(elements, scope))?;
        self.charge(10)?;
        made.map(Val::from)
    }

    fn elements(
        &self,
        elements: &[(Node, bool)],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Vec<Val<'a>>, Error> {
        let mut values = Vec::with_capacity(elements.len());
        for (node, optional) in elements {
            match (self.eval(node, scope)?, optional) {
                (value, false) => values.push(value),
                (Val::Optional(None), true) => {}
                (Val::Optional(Some(value)), true) => values.push((*value).clone()),
                (value, true) => {
                    return Err(failed_with(format!(
                        "cannot initialize optional list element from non-optional value {value}"
                    )));
                }
            }
        }
        Ok(values)
    }

    fn map(&self, entries: &[(Node, Node, bool)], scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let made = soft(self.entries(entries, scope))?;
        self.charge(30)?;
        made.map(|entries| Val::Map(Map::of(entries)))
    }

    fn entries(
        &self,
        entries: &[(Node, Node, bool)],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<BTreeMap<Key<'a>, Val<'a>>, Error> {
        let mut made = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key, scope)?;
            let value = self.eval(value, scope)?;
            if let Some(value) = given(&key, value, *optional)? {
                made.insert(Key::of(&key)?, value);
            } else {
                made.remove(&Key::of(&key)?);
            }
        }
        Ok(made)
    }

    fn object(
        &self,
        name: &Arc<str>,
        fields: &[(Arc<str>, Node, bool)],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Evaluated<'a> {
        let mut made = Vec::with_capacity(fields.len());
        let mut wrong = None;
        for (field, node, optional) in fields {
            let value = soft(self.eval(node, scope))?;
            let shown = Val::String(Text::Shared(field.clone()));
            match value.and_then(|value| given(&shown, value, *optional)) {
                Ok(Some(value)) => made.push((field.clone(), value)),
                Ok(None) => {}
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        self.charge(40)?;
        match wrong {
            Some(error) => Err(error),
            None => Ok(Val::Object(Arc::new(Object { name: name.clone(), fields: made }))),
        }
    }

    fn fold(&self, fold: &Fold, around: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let range = self.eval(&fold.range, around)?;
        let scope = Scope { around, fold, variables: RefCell::default() };
        let index = |at: usize| Ok(Val::Int(at as i64));
        match (&range, fold.two) {
            (Val::List(list), false) => {
                for item in list.iter() {
                    if !self.turn(&scope, item, None)? {
                        break;
                    }
                }
            }
            (Val::List(list), true) => {
                for (at, item) in list.iter().enumerate() {
                    if !self.turn(&scope, index(at), Some(item))? {
                        break;
                    }
                }
            }
            (Val::Map(map), false) => {
                for key in map.keys() {
                    if !self.turn(&scope, Ok(key), None)? {
                        break;
                    }
                }
            }
            (Val::Map(map), true) => {
                for key in map.keys() {
                    let value = map.find(&key).and_then(|found| found.ok_or(failed("no such key")));
                    if !self.turn(&scope, Ok(key), Some(value))? {
                        break;
                    }
                }
            }
            (other, false) => {
                return Err(failed_with(format!("got '{}', expected iterable type", go_name(other))));
            }
            (other, true) => {
                return Err(failed_with(format!("unsupported comprehension range type: {}", go_name(other))));
            }
        }
        self.eval(&fold.result, Some(&scope))
    }

    /// One turn of a loop; whether there may be another.
    fn turn(
        &self,
        scope: &Scope<'_, 'a>,
        first: Evaluated<'a>,
        second: Option<Evaluated<'a>>,
    ) -> Result<bool, Error> {
        {
            let mut variables = scope.variables.borrow_mut();
            variables.first = Some(first);
            variables.second = second;
        }
        if matches!(soft(self.eval(&scope.fold.condition, Some(scope)))?, Ok(Val::Bool(false))) {
            return Ok(false);
        }
        let next = soft(self.eval(&scope.fold.step, Some(scope)))?;
        scope.variables.borrow_mut().accumulator = Some(next);
        Ok(true)
    }

    /// The accumulator; it is made when it is first looked at.
    fn accumulator(&self, scope: &Scope<'_, 'a>) -> Evaluated<'a> {
        if let Some(known) = &scope.variables.borrow().accumulator {
            return known.clone();
        }
        let made = soft(self.eval(&scope.fold.init, scope.around))?;
        scope.variables.borrow_mut().accumulator = Some(made.clone());
        made
    }

    /// The accumulator, of which nothing is left behind.
    fn take_accumulator(&self, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let Some(scope) = scope else { return Err(NO_OVERLOAD) };
        drop(self.accumulator(scope));
        scope.variables.borrow_mut().accumulator.take().unwrap_or(Err(NO_OVERLOAD))
    }

    fn append(&self, list: &Node, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        self.charge(1)?;
        let added = soft(self.eval(list, scope))?;
        self.charge(1)?;
        let accumulated = self.take_accumulator(scope)?;
        match added? {
            Val::List(one) => match one.get(0) {
                Some(item) => ops::append(accumulated, item?),
                None => Ok(accumulated),
            },
            _ => Err(NO_OVERLOAD),
        }
    }

    fn insert(&self, args: &[Node], scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        self.charge(1)?;
        let values = args.iter().map(|arg| self.eval(arg, scope)).collect::<Result<Vec<_>, _>>()?;
        self.charge(1)?;
        let Val::Map(mut map) = self.take_accumulator(scope)? else { return Err(NO_OVERLOAD) };
        match values.as_slice() {
            [key, value] => map = map.insert(key, value.clone())?,
            [Val::Map(more)] => {
                for (key, value) in more.entries()? {
                    map = map.insert(&key, value)?;
                }
            }
            _ => return Err(NO_OVERLOAD),
        }
        Ok(Val::Map(map))
    }

    fn attribute(&self, attribute: &Attribute, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let value = soft(self.resolve(attribute, scope))?;
        // A ternary costs what its condition and its branch cost, and asking whether something is there
        // costs no more than getting there.
        match (&attribute.root, attribute.test_only) {
            (Root::Conditional(_), false) => {}
            (Root::Conditional(_), true) => self.cost.set(self.cost.get().saturating_sub(1)),
            (_, true) => {}
            (_, false) => self.charge(1)?,
        }
        match value? {
            Val::Optional(found) if attribute.test_only => Ok(Val::Bool(found.is_some())),
            other => Ok(other),
        }
    }

    fn resolve(&self, attribute: &Attribute, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let value = match &attribute.root {
            Root::Global(name) => {
                if let Some((first, rest)) = attribute.steps.split_first()
                    && let By::Key(Val::String(field)) = &first.by
                    && let Some(value) = self.activation.field(name, field)
                {
                    return self.go_on(value, first, rest, scope);
                }
                self.activation
                    .resolve(name)
                    .ok_or_else(|| failed_with(format!("no such attribute(s): {name}")))?
            }
            Root::Local(up, variable) => self.local(*up, *variable, scope)?,
            Root::Conditional(parts) => {
                return match self.eval(&parts.0, scope)? {
                    Val::Bool(true) => self.resolve(&parts.1, scope),
                    Val::Bool(false) => self.resolve(&parts.2, scope),
                    _ => Err(NO_OVERLOAD),
                };
            }
            Root::Value(node) => self.eval(node, scope)?,
        };
        if attribute.steps.is_empty() { Ok(value) } else { self.walk(value, &attribute.steps, scope) }
    }

    /// The way on from a field that the activation computed.
    fn go_on(
        &self,
        value: Evaluated<'a>,
        first: &Step,
        rest: &[Step],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Evaluated<'a> {
        self.charge(1)?;
        match (first.test_only, first.optional) {
            (true, _) => value.map(|_| Val::Bool(true)),
            (false, false) if rest.is_empty() => value,
            (false, false) => self.walk(value?, rest, scope),
            (false, true) => self.walk(Val::some(value?), rest, scope),
        }
    }

    fn local(&self, up: usize, variable: Variable, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let mut at = scope;
        for _ in 0..up {
            at = at.and_then(|scope| scope.around);
        }
        let Some(scope) = at else { return Err(NO_OVERLOAD) };
        match variable {
            Variable::Accumulator => self.accumulator(scope),
            Variable::First => scope.variables.borrow().first.clone().unwrap_or(Err(NO_OVERLOAD)),
            Variable::Second => scope.variables.borrow().second.clone().unwrap_or(Err(NO_OVERLOAD)),
        }
    }

    fn walk(&self, value: Val<'a>, steps: &[Step], scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let (mut at, mut optional) = match value {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => ((*value).clone(), true),
            other => (other, false),
        };
        for step in steps {
            optional |= step.optional;
            match self.step(&at, step, optional, scope)? {
                Some(next) => at = next,
                None => return Ok(Val::Optional(None)),
            }
        }
        Ok(if optional { Val::some(at) } else { at })
    }

    /// One step; nothing where it may lead to nothing.
    fn step(
        &self,
        at: &Val<'a>,
        step: &Step,
        optional: bool,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Option<Val<'a>>, Error> {
        let key = match &step.by {
            By::Key(key) => Ok(key.clone()),
            By::Attribute(attribute) => soft(self.resolve(attribute, scope))?,
            By::Node(node) => soft(self.eval(node, scope))?,
        };
        let found = key.and_then(|key| {
            let found = lookup(at, &key, step.test_only || optional)?;
            Ok((key, found))
        });
        if step.test_only {
            let present = found.map(|(_, found)| found.is_some());
            return match (present, optional) {
                (Ok(false), true) => Ok(None),
                (present, _) => {
                    self.charge(1)?;
                    present.map(|present| Some(Val::Bool(present)))
                }
            };
        }
        if optional {
            let (_, found) = found?;
            if found.is_some() {
                self.charge(1)?;
            }
            return Ok(found);
        }
        self.charge(1)?;
        let (key, found) = found?;
        match found {
            Some(value) => Ok(Some(value)),
            None if matches!(at, Val::List(_)) => Err(failed_with(format!("index out of bounds: {key}"))),
            None => Err(failed_with(format!("no such key: {key}"))),
        }
    }
}

/// What a key finds in a value; values that have no inside have nothing.
fn lookup<'a>(at: &Val<'a>, key: &Val<'a>, lenient: bool) -> Result<Option<Val<'a>>, Error> {
    match at {
        Val::Map(map) => map.find(key),
        Val::List(list) => list.index(key),
        Val::Object(object) if &*object.name == "JSONPatch" => Ok(patch_field(object, key, lenient)),
        _ => Ok(None),
    }
}

fn patch_field<'a>(object: &Object<'a>, key: &Val<'a>, lenient: bool) -> Option<Val<'a>> {
    let name = key.as_str()?;
    let field = object.fields.iter().find(|(known, _)| &**known == name).map(|(_, value)| value.clone());
    match name {
        "op" | "path" | "from" if !lenient => Some(field.unwrap_or_else(|| Val::from(""))),
        _ => field,
    }
}

/// The value of an entry that may be left out.
fn given<'a>(key: &Val<'a>, value: Val<'a>, optional: bool) -> Result<Option<Val<'a>>, Error> {
    match (value, optional) {
        (value, false) => Ok(Some(value)),
        (Val::Optional(None), true) => Ok(None),
        (Val::Optional(Some(value)), true) => Ok(Some((*value).clone())),
        (value, true) => Err(failed_with(format!(
            "cannot initialize optional entry '{key}' from non-optional value {value}"
        ))),
    }
}

/// The name of a value's type in upstream's program.
const fn go_name(value: &Val<'_>) -> &'static str {
    match value {
        Val::Null => "types.Null",
        Val::Bool(_) => "types.Bool",
        Val::Int(_) => "types.Int",
        Val::Uint(_) => "types.Uint",
        Val::Double(_) => "types.Double",
        Val::String(_) => "types.String",
        Val::Bytes(_) => "types.Bytes",
        Val::Duration(_) => "types.Duration",
        Val::Timestamp(_) => "types.Timestamp",
        Val::Optional(_) => "*types.Optional",
        _ => "ref.Val",
    }
}
