//! Lists.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::value::Value;

use super::ops::equal;
use super::{Error, Evaluated, NO_OVERLOAD, Val, failed_with, typed};
use crate::schema::{ListType, Schema};

/// A list.
#[derive(Clone, Debug)]
pub struct List<'a> {
    items: Items<'a>,
    /// The schema of the list, if it was read by one.
    schema: Option<&'a Schema>,
}

#[derive(Clone, Debug)]
enum Items<'a> {
    Json(&'a [Value]),
    Made(Arc<Vec<Val<'a>>>),
}

impl<'a> List<'a> {
    /// A list of values.
    pub fn of(values: Vec<Val<'a>>) -> Self {
        Self { items: Items::Made(Arc::new(values)), schema: None }
    }

    pub(crate) const fn json(items: &'a [Value], schema: Option<&'a Schema>) -> Self {
        Self { items: Items::Json(items), schema }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Json(items) => items.len(),
            Items::Made(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at an index.
    pub fn get(&self, at: usize) -> Option<Evaluated<'a>> {
        match &self.items {
            Items::Json(items) => items.get(at).map(|item| self.read(item)),
            Items::Made(values) => values.get(at).cloned().map(Ok),
        }
    }

    fn read(&self, item: &'a Value) -> Evaluated<'a> {
        match self.schema {
            None => Ok(Val::from(item)),
            Some(schema) => typed::read_item(item, schema),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Evaluated<'a>> + use<'a> {
        let list = self.clone();
        (0..self.len()).filter_map(move |at| list.get(at))
    }

    /// What an index expression finds.
    pub(crate) fn index(&self, index: &Val<'a>) -> Result<Option<Val<'a>>, Error> {
        let unsupported = || failed_with(format!("unsupported index value {index} in list"));
        let at = match index {
            Val::Int(at) => *at,
            Val::Double(at) => crate::value::ops::double_to_int(*at).ok_or_else(unsupported)?,
            Val::Uint(at) => i64::try_from(*at).map_err(|_| unsupported())?,
            _ => {
                return Err(failed_with(format!("unsupported index type '{}' in list", index.kind().name())));
            }
        };
        usize::try_from(at).ok().and_then(|at| self.get(at)).transpose()
    }

    pub(crate) fn contains(&self, wanted: &Val<'a>) -> Result<bool, Error> {
        let mut error = None;
        for item in self.iter() {
            match equal(wanted, &item?) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(wrong) if self.schema.is_some() => error = error.or(Some(wrong)),
                Err(_) => {}
            }
        }
        error.map_or(Ok(false), Err)
    }

    /// The list and then the other; sets and lists with keys keep their promise.
    pub(crate) fn plus(&self, other: &Self) -> Result<Self, Error> {
        let kind = self.schema.map_or(ListType::Atomic, |schema| schema.list_type);
        if kind == ListType::Atomic {
            if self.is_empty() && self.schema.is_none() {
                return Ok(other.clone());
            }
            if other.is_empty() {
                return Ok(self.clone());
            }
        }
        let mut values = self.iter().collect::<Result<Vec<_>, _>>()?;
        for item in other.iter() {
            let item = item?;
            let same = match (kind, self.schema) {
                (ListType::Set, _) => find(&values, |mine| equal(mine, &item))?,
                (ListType::Map, Some(schema)) => find(&values, |mine| same_keys(mine, &item, schema))?,
                _ => None,
            };
            match same {
                None => values.push(item),
                Some(at) if kind == ListType::Map => values[at] = item,
                Some(_) => {}
            }
        }
        Ok(Self { items: Items::Made(Arc::new(values)), schema: self.schema })
    }

    /// `accu + [item]` of a loop, in place where nobody else holds the list.
    pub(crate) fn push(&mut self, item: Val<'a>) {
        if let Items::Made(values) = &mut self.items {
            Arc::make_mut(values).push(item);
        }
    }

    pub(crate) const fn is_made(&self) -> bool {
        matches!(self.items, Items::Made(_)) && self.schema.is_none()
    }

    pub(crate) fn equals(&self, other: &Val<'a>) -> Result<bool, Error> {
        let Val::List(other) = other else {
            return if self.schema.is_some() { Err(NO_OVERLOAD) } else { Ok(false) };
        };
        if self.len() != other.len() {
            return Ok(false);
        }
        match (self.schema.map_or(ListType::Atomic, |schema| schema.list_type), self.schema) {
            (ListType::Set, _) => {
                let mine = self.iter().collect::<Result<Vec<_>, _>>()?;
                for item in other.iter() {
                    let item = item?;
                    if find(&mine, |mine| equal(mine, &item))?.is_none() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (ListType::Map, Some(schema)) => {
                let mine = self.iter().collect::<Result<Vec<_>, _>>()?;
                for item in other.iter() {
                    let item = item?;
                    match find(&mine, |mine| same_keys(mine, &item, schema))? {
                        Some(at) if equal(&mine[at], &item)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            _ => {
                for (mine, theirs) in self.iter().zip(other.iter()) {
                    match equal(&mine?, &theirs?) {
                        Ok(true) => {}
                        // Of untyped elements that cannot be compared, upstream forgets the error.
                        Err(_) if self.schema.is_none() => {}
                        unequal => return unequal,
                    }
                }
                Ok(true)
            }
        }
    }

    /// Positions by text, for lists that are only of strings; used where a scan would be quadratic.
    pub(crate) fn strings(&self) -> Option<HashMap<String, usize>> {
        self.iter().enumerate().map(|(at, item)| Some((item.ok()?.as_str()?.to_owned(), at))).collect()
    }
}

fn find<'a>(
    values: &[Val<'a>],
    mut same: impl FnMut(&Val<'a>) -> Result<bool, Error>,
) -> Result<Option<usize>, Error> {
    for (at, value) in values.iter().enumerate() {
        if same(value)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn same_keys<'a>(mine: &Val<'a>, theirs: &Val<'a>, schema: &Schema) -> Result<bool, Error> {
    let (Val::Map(mine), Val::Map(theirs)) = (mine, theirs) else { return Err(NO_OVERLOAD) };
    for key in &schema.list_map_keys {
        match (mine.get_str(key)?, theirs.get_str(key)?) {
            (None, None) => {}
            (Some(mine), Some(theirs)) if equal(&mine, &theirs)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
