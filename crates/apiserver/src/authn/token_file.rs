//! `--token-auth-file`: tokens, users and groups as lines of comma-separated values.

use super::tokens::{Answer, Known, TokenAuthenticator};
use crate::user::User;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::path::Path;

/// The tokens of the file, which is read once.
#[derive(Debug)]
pub struct TokenFile(HashMap<String, User>);

impl TokenFile {
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, path: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (at, record) in records(text)?.into_iter().enumerate() {
            let [token, name, uid, rest @ ..] = record.as_slice() else {
                return Err(format!(
                    "token file '{path}' must have at least 3 columns (token, user name, user uid), found {}",
                    record.len()
                ));
            };
            let number = at + 1;
            if token.is_empty() {
                tracing::warn!("empty token has been found in token file '{path}', record number '{number}'");
                continue;
            }
            let groups = rest.first().map(|g| g.split(',').map(str::to_owned).collect()).unwrap_or_default();
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..Default::default() };
            if tokens.insert(token.clone(), user).is_some() {
                tracing::warn!(
                    "duplicate token has been found in token file '{path}', record number '{number}'"
                );
            }
        }
        Ok(TokenFile(tokens))
    }
}

/// Records as Go's `encoding/csv` reads them: quoted fields may hold commas, line breaks and doubled quotes; empty
/// lines are none.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let (mut record, mut field) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let (mut line, mut quoted, mut begun) = (1, false, false);
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted => match chars.peek() {
                Some('"') => {
                    chars.next();
                    field.push('"');
                }
                None | Some(',' | '\n' | '\r') => quoted = false,
                Some(_) => {
                    return Err(format!(
                        "parse error on line {line}: extraneous or missing \" in quoted-field"
                    ));
                }
            },
            '"' if field.is_empty() && !begun => (quoted, begun) = (true, true),
            '"' => return Err(format!("parse error on line {line}: bare \" in non-quoted-field")),
            ',' if !quoted => {
                record.push(std::mem::take(&mut field));
                begun = false;
            }
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                line += 1;
                if !record.is_empty() || !field.is_empty() || begun {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
                begun = false;
            }
            c => {
                line += usize::from(c == '\n');
                field.push(c);
            }
        }
    }
    if quoted {
        return Err(format!("parse error on line {line}: extraneous or missing \" in quoted-field"));
    }
    if !record.is_empty() || !field.is_empty() || begun {
        record.push(field);
        records.push(record);
    }
    Ok(records)
}

impl TokenAuthenticator for TokenFile {
    fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Answer> {
        let known = self.0.get(token).map(|user| Known { user: user.clone(), audiences: Vec::new() });
        Box::pin(std::future::ready(Ok(known)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let said = match TokenFile::parse(text, "f") {
            Err(error) => error,
            Ok(TokenFile(tokens)) => {
                let mut lines: Vec<String> = tokens
                    .iter()
                    .map(|(token, user)| format!("{token}: {} {} {:?}", user.name, user.uid, user.groups))
                    .collect();
                lines.sort();
                lines.join("\n")
            }
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn files() {
        check(
            "token1,user1,uid1\r\n\ntoken2,user2,uid2,\"g1,g2\"\n\"to\"\"ken3\",user3,uid3,g,ignored\n,nobody,uid\ntoken1,user4,uid4,",
            expect![[r#"
                to"ken3: user3 uid3 ["g"]
                token1: user4 uid4 [""]
                token2: user2 uid2 ["g1", "g2"]"#]],
        );
        check("", expect![""]);
        check(
            "a,b\n",
            expect!["token file 'f' must have at least 3 columns (token, user name, user uid), found 2"],
        );
        check("a,b\"c,d\n", expect![[r#"parse error on line 1: bare " in non-quoted-field"#]]);
        check(
            "a,b,c\n\"a,b,c",
            expect![[r#"parse error on line 2: extraneous or missing " in quoted-field"#]],
        );
    }
}
