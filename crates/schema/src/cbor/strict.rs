//! What strict field validation says of CBOR: where the first member is that its type does not have. Members that stand
//! twice are no matter of strictness: such a document cannot be read.

use super::Major;
use super::fault::Result;
use super::read::{Head, Reader};
use crate::row::{Shape, Type, TypeId};
use crate::table::Table;

/// The complaint about the first unknown field of a document that can be read; the number counts within its map.
pub fn unknown_field(table: &Table, id: TypeId, bytes: &[u8]) -> Option<String> {
    let mut search = Search { table, reader: Reader { bytes, at: 0 } };
    let index = search.value(&Type::Ref(id)).ok()??;
    Some(format!("cbor: found unknown field at map element index {index}"))
}

struct Search<'a> {
    table: &'a Table,
    reader: Reader<'a>,
}

impl<'a> Search<'a> {
    /// Where an unknown member stands in this value: in itself, else in the first of its parts that has one. A map is
    /// read no further behind its own.
    fn value(&mut self, ty: &'a Type) -> Result<Option<u64>> {
        let ty = match ty {
            Type::Ref(id) if self.table.ty(*id).shape == Shape::Scalar => {
                self.table.ty(*id).scalar.as_ref().unwrap_or(&Type::Any)
            }
            ty => ty,
        };
        let start = self.reader.at;
        let (major, count) = match self.reader.head()? {
            Head::Number(Major::Tag, _) => return self.value(ty),
            Head::Number(major, count) => (major, Some(count)),
            Head::Endless(major) => (major, None),
            _ => return Ok(None),
        };
        let (mut done, mut found) = (0, None);
        match (ty, major) {
            (Type::List(item), Major::Array) => {
                while self.reader.more(done, count)? {
                    let within = self.value(item)?;
                    found = found.or(within);
                    done += 1;
                }
            }
            (Type::Map(_) | Type::Ref(_), Major::Map) => {
                while self.reader.more(done, count)? {
                    let Some(member) = self.member(ty)? else {
                        self.reader.skip()?;
                        found = Some(done);
                        done += 1;
                        while self.reader.more(done, count)? {
                            self.reader.skip()?;
                            self.reader.skip()?;
                            done += 1;
                        }
                        break;
                    };
                    let within = self.value(member)?;
                    found = found.or(within);
                    done += 1;
                }
            }
            _ => {
                self.reader.at = start;
                self.reader.skip()?;
            }
        }
        Ok(found)
    }

    /// The type of the member whose key comes; nothing where its owner has none of the name.
    fn member(&mut self, ty: &'a Type) -> Result<Option<&'a Type>> {
        let table = self.table;
        let id = match ty {
            Type::Map(member) => {
                self.reader.skip()?;
                return Ok(Some(member));
            }
            Type::Ref(id) => *id,
            _ => {
                self.reader.skip()?;
                return Ok(Some(&Type::Any));
            }
        };
        let row = table.ty(id);
        let head = self.reader.head()?;
        let name = match head {
            Head::Number(Major::Bytes | Major::Text, _) | Head::Endless(_) => self.reader.string(&head)?,
            _ => return Ok(None),
        };
        let field = std::str::from_utf8(&name).ok().and_then(|name| table.index(id, name));
        Ok(match field {
            Some(field) => Some(&row.fields[field].ty),
            None if row.shape == Shape::Struct => None,
            None => Some(&Type::Any),
        })
    }
}
