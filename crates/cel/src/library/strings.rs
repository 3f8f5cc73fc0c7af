//! Strings, counted in code points.

use apimachinery::quote::quote as go_quote;

use super::format;
use crate::decls::Row;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed_with};

pub(crate) const ROWS: &[Row] = &[
    Row("charAt", "string_char_at_int", "string.(int): string", char_at),
    Row("indexOf", "string_index_of_string", "string.(string): int", index_of),
    Row("indexOf", "string_index_of_string_int", "string.(string, int): int", index_of),
    Row("lastIndexOf", "string_last_index_of_string", "string.(string): int", last_index_of),
    Row("lastIndexOf", "string_last_index_of_string_int", "string.(string, int): int", last_index_of),
    Row("lowerAscii", "string_lower_ascii", "string.(): string", lower_ascii),
    Row("replace", "string_replace_string_string", "string.(string, string): string", replace),
    Row("replace", "string_replace_string_string_int", "string.(string, string, int): string", replace),
    Row("split", "string_split_string", "string.(string): list(string)", split),
    Row("split", "string_split_string_int", "string.(string, int): list(string)", split),
    Row("substring", "string_substring_int", "string.(int): string", substring),
    Row("substring", "string_substring_int_int", "string.(int, int): string", substring),
    Row("trim", "string_trim", "string.(): string", trim),
    Row("upperAscii", "string_upper_ascii", "string.(): string", upper_ascii),
    Row("format", "string_format", "string.(list(dyn)): string", format::format),
    Row("strings.quote", "strings_quote", "(string): string", quote),
    Row("join", "list_join", "list(string).(): string", join),
    Row("join", "list_join_string", "list(string).(string): string", join),
];

fn text<'v>(args: &'v [Val<'_>], at: usize) -> Result<&'v str, Error> {
    args.get(at).and_then(Val::as_str).ok_or(NO_OVERLOAD)
}

fn whole(args: &[Val<'_>], at: usize) -> Result<Option<i64>, Error> {
    match args.get(at) {
        None => Ok(None),
        Some(Val::Int(value)) => Ok(Some(*value)),
        Some(_) => Err(NO_OVERLOAD),
    }
}

fn out_of_range(at: i64) -> Error {
    failed_with(format!("index out of range: {at}"))
}

fn char_at<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, at) = (text(args, 0)?, whole(args, 1)?.unwrap_or(0));
    let index = usize::try_from(at).map_err(|_| out_of_range(at))?;
    match text.chars().nth(index) {
        Some(character) => Ok(Val::from(character.to_string())),
        None if text.chars().count() == index => Ok(Val::from("")),
        None => Err(out_of_range(at)),
    }
}

fn index_of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, part, from) = (text(args, 0)?, text(args, 1)?, whole(args, 2)?.unwrap_or(0));
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    let skip = usize::try_from(from).map_err(|_| out_of_range(from))?;
    let Some((start, _)) = text.char_indices().nth(skip) else { return Ok(Val::Int(-1)) };
    let found = text[start..].find(part).map(|at| (skip + text[start..start + at].chars().count()) as i64);
    Ok(Val::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, part) = (text(args, 0)?, text(args, 1)?);
    let length = text.chars().count() as i64;
    let from = match whole(args, 2)? {
        Some(from) if part.is_empty() => return Ok(Val::Int(from)),
        None if part.is_empty() => return Ok(Val::Int(length)),
        None if text.len() < part.len() => return Ok(Val::Int(-1)),
        Some(from) => from,
        None => length - 1,
    };
    if from < 0 {
        return Err(out_of_range(from));
    }
    if from >= length {
        return Ok(Val::Int(-1));
    }
    let last =
        text.char_indices().take(from as usize + 1).filter(|(at, _)| text[*at..].starts_with(part)).last();
    Ok(Val::Int(last.map_or(-1, |(at, _)| text[..at].chars().count() as i64)))
}

fn lower_ascii<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::from(text(args, 0)?.to_ascii_lowercase()))
}

fn upper_ascii<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::from(text(args, 0)?.to_ascii_uppercase()))
}

fn replace<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    Ok(Val::from(match whole(args, 3)? {
        Some(most) => match usize::try_from(most) {
            Ok(most) => text.replacen(from, to, most),
            Err(_) => text.replace(from, to),
        },
        None => text.replace(from, to),
    }))
}

fn split<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, separator) = (text(args, 0)?, text(args, 1)?);
    let most = match whole(args, 2)? {
        Some(0) => return Ok(Val::from(Vec::new())),
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let parts: Vec<String> = if separator.is_empty() {
        let mut rest = text.chars();
        let mut parts = Vec::new();
        while parts.len() + 1 < most {
            match rest.next() {
                Some(character) => parts.push(character.to_string()),
                None => break,
            }
        }
        if !rest.as_str().is_empty() {
            parts.push(rest.as_str().to_owned());
        }
        parts
    } else {
        text.splitn(most, separator).map(String::from).collect()
    };
    Ok(Val::from(parts.into_iter().map(Val::from).collect::<Vec<_>>()))
}

fn substring<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, start) = (text(args, 0)?, whole(args, 1)?.unwrap_or(0));
    let length = text.chars().count() as i64;
    let end = whole(args, 2)?;
    if let Some(end) = end
        && start > end
    {
        return Err(failed_with(format!("invalid substring range. start: {start}, end: {end}")));
    }
    for at in [start, end.unwrap_or(length)] {
        if !(0..=length).contains(&at) {
            return Err(out_of_range(at));
        }
    }
    let count = end.unwrap_or(length) - start;
    Ok(Val::from(text.chars().skip(start as usize).take(count as usize).collect::<String>()))
}

fn trim<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::from(text(args, 0)?.trim().to_owned()))
}

fn quote<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let mut quoted = String::from("\"");
    for character in text(args, 0)?.chars() {
        match character {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Val::from(quoted))
}

fn join<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let Val::List(list) = &args[0] else { return Err(NO_OVERLOAD) };
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut joined = String::new();
    for (at, item) in list.iter().enumerate() {
        let item = item?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item.as_str().ok_or_else(|| failed_with(format!("join: invalid input: {item}")))?);
    }
    Ok(Val::from(joined))
}

/// Text in Go's quotes.
pub(crate) fn quoted(text: &str) -> String {
    go_quote(text)
}
