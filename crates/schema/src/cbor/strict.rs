//! What strict field validation says of CBOR: where the first member is that its type does not have. Members that stand
//! twice are no matter of strictness: such a document cannot be read.

use super::Major;
use super::read::{Head, Reader};
use crate::decode::DecodeError;
use crate::row::{Shape, Type, TypeId};
use crate::table::Table;

/// The complaint about the first unknown field of a document that can be read; the number counts within its map.
pub fn unknown_field(table: &Table, id: TypeId, bytes: &[u8]) -> Option<String> {
    let mut search = Search { table, reader: Reader { bytes, at: 0 }, found: None };
    let ty = Type::Ref(id);
    search.value(&ty, 0).ok()?;
    search.found.map(|index| format!("cbor: found unknown field at map element index {index}"))
}

struct Search<'a> {
    table: &'a Table,
    reader: Reader<'a>,
    found: Option<u64>,
}

impl<'a> Search<'a> {
    fn value(&mut self, ty: &'a Type, depth: usize) -> Result<(), DecodeError> {
        let ty = match ty {
            Type::Ref(id) if self.table.ty(*id).shape == Shape::Scalar => {
                self.table.ty(*id).scalar.as_ref().unwrap_or(&Type::Any)
            }
            ty => ty,
        };
        let start = self.reader.at;
        let (major, count) = match self.reader.head()? {
            Head::Number(Major::Tag, _) => return self.value(ty, depth + 1),
            Head::Number(major, count) => (major, Some(count)),
            Head::Endless(major) => (major, None),
            _ => return Ok(()),
        };
        let mut done = 0;
        match (ty, major) {
            (Type::List(item), Major::Array) => {
                while self.reader.more(done, count)? {
                    self.value(item, depth + 1)?;
                    done += 1;
                }
            }
            (Type::Map(_) | Type::Ref(_), Major::Map) => {
                while self.reader.more(done, count)? {
                    let key = self.reader.key()?;
                    let member = self.member(ty, &key, done);
                    self.value(member, depth + 1)?;
                    done += 1;
                }
            }
            _ => {
                self.reader.at = start;
                self.reader.value(depth)?;
            }
        }
        Ok(())
    }

    /// The type of a member; the first that its owner does not have is noted.
    fn member(&mut self, ty: &'a Type, key: &str, index: u64) -> &'a Type {
        let table = self.table;
        match ty {
            Type::Map(member) => member,
            Type::Ref(id) => match (table.index(*id, key), table.ty(*id).shape) {
                (Some(field), _) => &table.ty(*id).fields[field].ty,
                (None, Shape::Struct) => {
                    self.found.get_or_insert(index);
                    &Type::Any
                }
                (None, _) => &Type::Any,
            },
            _ => &Type::Any,
        }
    }
}
