//! Bytes to trees of a type: what each part must be, in the words of Go's structs. Members that their owner does not have
//! are left out, whatever they are; [`super::unknown_field`] finds them.

use super::fault::{Fault, Result, bad};
use super::read::{Decoder, Head, below, duplicate, unrecognized};
use super::{Major, wellformed};
use crate::decode::{DecodeError, bad_base64, element, go_type};
use crate::row::{Field, Shape, Type, TypeId, TypeRow};
use crate::table::Table;
use apimachinery::value::{Map, Number, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashSet;

/// As deep as JSON may be.
const MAX_DEPTH: usize = 127;

/// Reads a document as a type of the table; absent members, defaults and canonical forms are the business of
/// [`crate::decode::normalise`].
pub fn typed(table: &Table, id: TypeId, bytes: &[u8]) -> std::result::Result<Value, DecodeError> {
    wellformed::check(bytes)?;
    let mut typed = Typed { table, decoder: Decoder::new(bytes) };
    Ok(typed.value(&Type::Ref(id), None, 0)?)
}

/// The `apiVersion` and `kind` of a document; all else is passed over.
pub fn type_meta(bytes: &[u8]) -> std::result::Result<(String, String), DecodeError> {
    const OWNER: &str = "v1.TypeMeta";
    wellformed::check(bytes)?;
    let mut typed = Typed { table: Table::empty(), decoder: Decoder::new(bytes) };
    let (mut api_version, mut kind) = (String::new(), String::new());
    typed.decoder.skip_self_described()?;
    typed.shape(OWNER)?.map_or(Ok(()), |count| {
        typed.members(count, &mut |typed, name| {
            let slot = match name {
                "apiVersion" => &mut api_version,
                "kind" => &mut kind,
                _ => return Ok(false),
            };
            let read = typed.value(&Type::String, None, 1);
            match read.map_err(|fault| fault.within(|| format!("{OWNER}.{name}")))? {
                Value::String(text) => *slot = text,
                _ => slot.clear(),
            }
            Ok(true)
        })
    })?;
    Ok((api_version, kind))
}

/// How many members a map has, if it says.
type Count = Option<u64>;

/// Takes a member by its name; `false` where its owner has none of that name.
type Take<'f, 't, 'a> = dyn FnMut(&mut Typed<'t, 'a>, &str) -> Result<bool> + 'f;

struct Typed<'t, 'a> {
    table: &'t Table,
    decoder: Decoder<'a>,
}

impl<'t, 'a> Typed<'t, 'a> {
    /// Reads a value; `go` is what Go calls its type, where that does not follow from it.
    fn value(&mut self, ty: &Type, go: Option<&'static str>, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return bad(format!("cbor: exceeded max nested level {MAX_DEPTH}"));
        }
        self.decoder.skip_self_described()?;
        if matches!(ty, Type::Any | Type::Object) {
            return self.decoder.free(depth);
        }
        if let Type::Ref(id) = ty {
            let row = self.table.ty(*id);
            if let (Shape::Scalar, Some(scalar)) = (row.shape, &row.scalar) {
                return self.value(scalar, go, depth);
            }
        }
        self.decoder.content()?;
        let tags = self.decoder.later.len();
        let head = loop {
            match self.decoder.reader.head()? {
                Head::Number(Major::Tag, tag) => {
                    if let super::BASE64_URL | super::BASE64 | super::BASE16 = tag {
                        self.decoder.later.push(tag);
                    }
                }
                head => break head,
            }
        };
        let value = self.content(head, ty, go, depth);
        self.decoder.later.truncate(tags);
        value
    }

    fn content(&mut self, head: Head, ty: &Type, go: Option<&'static str>, depth: usize) -> Result<Value> {
        let wanted = || match ty {
            // These read themselves, from text.
            Type::Time | Type::MicroTime | Type::Quantity => "string".to_owned(),
            Type::IntOrString => "int32".to_owned(),
            ty => go.map_or_else(|| go_type(self.table, ty), str::to_owned),
        };
        match (head, ty) {
            (Head::Number(Major::Unsigned, n), ty) => integer(Major::Unsigned, n.into(), ty, wanted),
            (Head::Number(Major::Negative, n), ty) => match i64::try_from(n) {
                Ok(n) => integer(Major::Negative, i128::from(!n), ty, wanted),
                Err(_) => Err(below(n, &wanted())),
            },
            (Head::Float(float), Type::Double) => {
                Ok(Number::from_f64(float).map_or(Value::Null, Value::Number))
            }
            (Head::Float(_), _) => Err(Fault::mistyped(Major::Simple, wanted())),
            (Head::Number(Major::Simple, 22), Type::IntOrString) => Ok("".into()),
            (Head::Number(Major::Simple, 22), _) => Ok(Value::Null),
            (Head::Number(Major::Simple, simple @ (20 | 21)), Type::Bool) => Ok((simple == 21).into()),
            (Head::Number(Major::Simple, 20 | 21), _) => Err(Fault::mistyped(Major::Simple, wanted())),
            (Head::Number(Major::Simple, simple), _) => Err(unrecognized(simple)),
            (head, Type::String | Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString)
                if is_string(&head) =>
            {
                let text = self.decoder.text(&head)?;
                Ok(if matches!(ty, Type::Quantity) { text.trim().into() } else { text.into() })
            }
            (head @ (Head::Number(Major::Bytes, _) | Head::Endless(Major::Bytes)), Type::Bytes) => {
                self.bytes(&head)
            }
            (Head::Number(Major::Array, count), Type::Bytes) => self.octets(Some(count), depth),
            (Head::Endless(Major::Array), Type::Bytes) => self.octets(None, depth),
            (Head::Number(Major::Array, count), Type::List(item)) => self.list(Some(count), item, go, depth),
            (Head::Endless(Major::Array), Type::List(item)) => self.list(None, item, go, depth),
            (Head::Number(Major::Map, count), Type::Map(member)) => self.map(Some(count), member, go, depth),
            (Head::Endless(Major::Map), Type::Map(member)) => self.map(None, member, go, depth),
            (Head::Number(Major::Map, count), Type::Ref(id)) => self.row(Some(count), *id, depth),
            (Head::Endless(Major::Map), Type::Ref(id)) => self.row(None, *id, depth),
            (Head::Number(Major::Array, _) | Head::Endless(Major::Array), Type::Ref(_)) => {
                Err(no_struct(wanted()))
            }
            (Head::Number(major, _) | Head::Endless(major), _) => Err(Fault::mistyped(major, wanted())),
            (Head::Break, _) => bad("cbor: unexpected \"break\" code"),
        }
    }

    /// Bytes, which JSON has in base64: so have byte strings, unless a tag says that they will have.
    fn bytes(&mut self, head: &Head) -> Result<Value> {
        let bytes = self.decoder.reader.string(head)?;
        if !self.decoder.later.is_empty() {
            return Ok(STANDARD.encode(bytes).into());
        }
        let text: Vec<u8> = bytes.into_iter().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        match (STANDARD.decode(&text), String::from_utf8(text)) {
            (Ok(_), Ok(text)) => Ok(text.into()),
            (Err(error), text) => {
                let length = text.map_or_else(|error| error.as_bytes().len(), |text| text.len());
                let why = bad_base64(&error, length);
                bad(format!("cbor: failed to decode base64 from byte string: {why}"))
            }
            (Ok(_), Err(error)) => bad(error.to_string()),
        }
    }

    /// Bytes as a list of numbers.
    fn octets(&mut self, count: Count, depth: usize) -> Result<Value> {
        let mut octets = Vec::new();
        while self.decoder.reader.more(octets.len() as u64, count)? {
            let octet = self.value(&Type::Int64, Some("uint8"), depth + 1)?;
            let number = octet.as_i64().unwrap_or_default();
            let fits = u8::try_from(number);
            octets.push(fits.map_err(|_| match number {
                0.. => {
                    let why = format!("{number} overflows uint8");
                    Fault::mistyped_because(Major::Unsigned, "uint8", why)
                }
                _ => Fault::mistyped(Major::Negative, "uint8"),
            })?);
        }
        Ok(STANDARD.encode(octets).into())
    }

    fn list(&mut self, count: Count, item: &Type, go: Option<&'static str>, depth: usize) -> Result<Value> {
        let (go, mut items) = (go.and_then(element), Vec::new());
        while self.decoder.reader.more(items.len() as u64, count)? {
            items.push(self.value(item, go, depth + 1)?);
        }
        Ok(items.into())
    }

    fn map(&mut self, count: Count, member: &Type, go: Option<&'static str>, depth: usize) -> Result<Value> {
        let (go, mut map, mut done) = (go.and_then(element), Map::new(), 0);
        while self.decoder.reader.more(done, count)? {
            let key = self.decoder.key()?;
            let value = self.value(member, go, depth + 1)?;
            if map.contains_key(&key) {
                return Err(duplicate(&apimachinery::quote::quote(&key), done));
            }
            map.insert(key, value);
            done += 1;
        }
        Ok(map.into())
    }

    fn row(&mut self, count: Count, id: TypeId, depth: usize) -> Result<Value> {
        let table = self.table;
        let (row, mut map) = (table.ty(id), Map::new());
        self.members(count, &mut |typed, name| {
            let value = match table.index(id, name) {
                Some(field) => typed.field(&row.fields[field], row, depth)?,
                None if row.shape == Shape::Open => typed.value(&Type::Any, None, depth + 1)?,
                None => return Ok(false),
            };
            map.insert(name.to_owned(), value);
            Ok(true)
        })?;
        Ok(map.into())
    }

    fn field(&mut self, field: &Field, row: &TypeRow, depth: usize) -> Result<Value> {
        // What may be absent may be undefined, too.
        let reader = &mut self.decoder.reader;
        if field.pointer && reader.bytes.get(reader.at) == Some(&0xf7) {
            reader.at += 1;
            return Ok(Value::Null);
        }
        let go = field.go.map(|go| go.ty).filter(|ty| !ty.is_empty());
        let value = self.value(&field.ty, go, depth + 1);
        value.map_err(|fault| fault.within(|| format!("{}.{}", go_name(row), field.name)))
    }

    /// The members of a struct that is named so, if that is what comes; nothing where it is null.
    fn shape(&mut self, owner: &str) -> Result<Option<Count>> {
        self.decoder.content()?;
        loop {
            return match self.decoder.reader.head()? {
                Head::Number(Major::Tag, _) => continue,
                Head::Number(Major::Map, count) => Ok(Some(Some(count))),
                Head::Endless(Major::Map) => Ok(Some(None)),
                Head::Number(Major::Simple, 22) => Ok(None),
                Head::Number(Major::Array, _) | Head::Endless(Major::Array) => {
                    Err(no_struct(owner.to_owned()))
                }
                Head::Number(Major::Simple, simple) if !matches!(simple, 20 | 21) => {
                    Err(unrecognized(simple))
                }
                Head::Number(major, _) | Head::Endless(major) => Err(Fault::mistyped(major, owner)),
                Head::Float(_) => Err(Fault::mistyped(Major::Simple, owner)),
                Head::Break => bad("cbor: unexpected \"break\" code"),
            };
        }
    }

    /// Goes over the members of a struct. Numbers are keys of no field; no key may come twice.
    fn members(&mut self, count: Count, take: &mut Take<'_, 't, 'a>) -> Result<()> {
        let (mut done, mut seen) = (0, HashSet::new());
        while self.decoder.reader.more(done, count)? {
            let (found, _) = self.decoder.reader.peek();
            let (name, shown) = match found {
                Major::Bytes | Major::Text => {
                    let head = self.decoder.reader.head()?;
                    let bytes = self.decoder.reader.string(&head)?;
                    let name = match String::from_utf8(bytes) {
                        Ok(name) => name,
                        Err(_) if found == Major::Text => return bad("cbor: invalid UTF-8 string"),
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    };
                    let shown = apimachinery::quote::quote(&name);
                    (Some(name), shown)
                }
                Major::Unsigned | Major::Negative => (None, self.number()?),
                _ => {
                    let why = format!(
                        "map key is of type {} and cannot be used to match struct field name",
                        found.name()
                    );
                    return Err(Fault::mistyped_because(found, "string", why));
                }
            };
            if !seen.insert(shown.clone()) {
                return Err(duplicate(&shown, done));
            }
            let taken = match &name {
                Some(name) => take(self, name)?,
                None => false,
            };
            if !taken {
                self.decoder.reader.skip()?;
            }
            done += 1;
        }
        Ok(())
    }

    /// A number as a key.
    fn number(&mut self) -> Result<String> {
        match self.decoder.reader.head()? {
            // What does not fit wraps around, as in Go.
            Head::Number(Major::Unsigned, n) => Ok((n as i64).to_string()),
            Head::Number(Major::Negative, n) => match i64::try_from(n) {
                Ok(n) => Ok((!n).to_string()),
                Err(_) => {
                    let why = format!("-1-{n} overflows Go's int64");
                    Err(Fault::mistyped_because(Major::Negative, "int64", why))
                }
            },
            _ => bad("cbor: no number"),
        }
    }
}

fn is_string(head: &Head) -> bool {
    matches!(head, Head::Number(Major::Bytes | Major::Text, _) | Head::Endless(Major::Bytes | Major::Text))
}

fn go_name(row: &TypeRow) -> String {
    let mut parts = row.name.rsplitn(3, '.');
    let kind = parts.next().unwrap_or_default();
    format!("{}.{kind}", parts.next().unwrap_or_default())
}

fn no_struct(wanted: String) -> Fault {
    let why = "cannot decode CBOR array to struct without toarray option";
    Fault::mistyped_because(Major::Array, wanted, why)
}

fn integer(found: Major, n: i128, ty: &Type, wanted: impl Fn() -> String) -> Result<Value> {
    let fits = match ty {
        Type::Int32 | Type::IntOrString => i32::try_from(n).is_ok(),
        Type::Int64 => i64::try_from(n).is_ok(),
        Type::Double => return Ok(Number::from_f64(n as f64).map_or(Value::Null, Value::Number)),
        _ => return Err(Fault::mistyped(found, wanted())),
    };
    match i64::try_from(n) {
        Ok(n) if fits => Ok(n.into()),
        _ => {
            let wanted = wanted();
            let why = format!("{n} overflows {wanted}");
            Err(Fault::mistyped_because(found, wanted, why))
        }
    }
}
