//! The JSON paths of printer columns, scale and selectable fields: client-go's dialect, without the braces.

use apimachinery::value::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(Box<str>),
    /// `*`.
    All,
    /// `..`: this and everything below.
    Recursive,
    /// `[a:b:c]`; a single index is a slice of one.
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        by: i64,
        one: bool,
    },
    /// `[?(left op right)]`.
    Filter {
        left: Operand,
        compare: Option<(Compare, Operand)>,
    },
    Union(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path like `.spec.list[0].name`; none if it is no path.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text.strip_prefix('$').unwrap_or(text) };
        let steps = parser.steps()?;
        parser.rest.is_empty().then_some(JsonPath(steps))
    }

    /// The values the path leads to.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        walk(&self.0, value)
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn steps(&mut self) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix("..") {
                steps.push(Step::Recursive);
                self.rest = rest;
                if !self.rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                // A lone dot is the object itself; a dot before a bracket says nothing.
                if !self.rest.is_empty() && !self.rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if self.rest.starts_with('[') {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && !self.rest.is_empty() {
                steps.push(self.name()?);
            } else {
                return Some(steps);
            }
        }
    }

    fn name(&mut self) -> Option<Step> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => name.push(chars.next()?.1),
                '.' | '[' | ' ' | '=' | '!' | '<' | '>' | ')' | ']' | ',' => {
                    end = i;
                    break;
                }
                _ => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => None,
            "*" => Some(Step::All),
            _ => Some(Step::Field(name.into())),
        }
    }

    /// The text between brackets, which may be nested within parentheses and quotes.
    fn bracket(&mut self) -> Option<Step> {
        let mut quoted = None;
        let mut depth = 0;
        let mut end = None;
        let mut escaped = false;
        for (i, c) in self.rest.char_indices() {
            match (quoted, c) {
                _ if escaped => escaped = false,
                (_, '\\') => escaped = true,
                (Some(q), c) if c == q => quoted = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quoted = Some(c),
                (None, '[') => depth += 1,
                (None, ']') => {
                    depth -= 1;
                    if depth == 0 {
                        end = Some(i);
                        break;
                    }
                }
                _ => {}
            }
        }
        let end = end?;
        let inner = self.rest[1..end].trim();
        self.rest = &self.rest[end + 1..];
        if let Some(filter) = inner.strip_prefix("?(") {
            return filter_step(filter.strip_suffix(')')?);
        }
        let parts = split(inner, ',');
        match parts.as_slice() {
            [one] => selector(one),
            many => Some(Step::Union(many.iter().map(|p| selector(p)).collect::<Option<_>>()?)),
        }
    }
}

/// Splits at a character outside quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut quoted = None;
    let mut from = 0;
    for (i, c) in text.char_indices() {
        match (quoted, c) {
            (Some(q), c) if c == q => quoted = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quoted = Some(c),
            (None, c) if c == at => {
                parts.push(text[from..i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts
}

fn unquote(text: &str) -> Option<String> {
    let inner = ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q))?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

fn selector(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Field(name.into()));
    }
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        text => text.parse::<i64>().ok().map(Some),
    };
    match split(text, ':').as_slice() {
        [one] => Some(Step::Slice { from: Some(one.parse().ok()?), to: None, by: 1, one: true }),
        [from, to] => Some(Step::Slice { from: number(from)?, to: number(to)?, by: 1, one: false }),
        [from, to, by] => {
            let by = number(by)?.unwrap_or(1);
            (by > 0).then_some(Step::Slice { from: number(from)?, to: number(to)?, by, one: false })
        }
        _ => None,
    }
}

fn filter_step(text: &str) -> Option<Step> {
    const OPERATORS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let mut quoted = None;
    for (i, c) in text.char_indices() {
        match (quoted, c) {
            (Some(q), c) if c == q => quoted = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quoted = Some(c),
            (None, _) => {
                if let Some((operator, compare)) = OPERATORS.iter().find(|(o, _)| text[i..].starts_with(o)) {
                    let left = operand(&text[..i])?;
                    let right = operand(&text[i + operator.len()..])?;
                    return Some(Step::Filter { left, compare: Some((*compare, right)) });
                }
            }
        }
    }
    Some(Step::Filter { left: operand(text)?, compare: None })
}

fn operand(text: &str) -> Option<Operand> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix('@') {
        let mut parser = Parser { rest: path };
        let steps = parser.steps()?;
        return parser.rest.trim().is_empty().then_some(Operand::Path(steps));
    }
    if let Some(text) = unquote(text) {
        return Some(Operand::Literal(text.into()));
    }
    serde_json::from_str(text).ok().map(Operand::Literal)
}

fn walk<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|v| take(step, v)).collect();
    }
    found
}

fn take<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        // A name applies to each item of a list that recursion has found.
        (Step::Field(_), _) => Vec::new(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::Recursive, value) => {
            let mut all = vec![value];
            let inner: Vec<&Value> = match value {
                Value::Object(map) => map.values().collect(),
                Value::Array(items) => items.iter().collect(),
                _ => Vec::new(),
            };
            all.extend(inner.into_iter().flat_map(|v| take(step, v)));
            all
        }
        (Step::Slice { from, to, by, one }, Value::Array(items)) => {
            let length = items.len() as i64;
            let place = |i: i64| if i < 0 { i + length } else { i };
            if *one {
                let at = place(from.unwrap_or(0));
                return usize::try_from(at).ok().and_then(|i| items.get(i)).into_iter().collect();
            }
            let from = place(from.unwrap_or(0)).clamp(0, length) as usize;
            let to = place(to.unwrap_or(length)).clamp(0, length) as usize;
            let by = usize::try_from(*by).unwrap_or(1);
            items.get(from..to).into_iter().flatten().step_by(by).collect()
        }
        (Step::Filter { left, compare }, Value::Array(items)) => {
            items.iter().filter(|item| passes(left, compare.as_ref(), item)).collect()
        }
        (Step::Union(steps), value) => steps.iter().flat_map(|s| take(s, value)).collect(),
        _ => Vec::new(),
    }
}

fn passes(left: &Operand, compare: Option<&(Compare, Operand)>, item: &Value) -> bool {
    let value = |operand: &Operand| match operand {
        Operand::Literal(value) => Some(value.clone()),
        Operand::Path(steps) => walk(steps, item).first().map(|v| (*v).clone()),
    };
    let Some((compare, right)) = compare else { return value(left).is_some() };
    let (Some(left), Some(right)) = (value(left), value(right)) else { return false };
    let order = match (&left, &right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
    };
    match compare {
        Compare::Equal => order.is_some_and(|o| o.is_eq()),
        Compare::NotEqual => !order.is_some_and(|o| o.is_eq()),
        Compare::Less => order.is_some_and(|o| o.is_lt()),
        Compare::LessOrEqual => order.is_some_and(|o| o.is_le()),
        Compare::Greater => order.is_some_and(|o| o.is_gt()),
        Compare::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
    }
}

#[cfg(test)]
mod tests {
    use super::JsonPath;
    use apimachinery::json;
    use apimachinery::value::Value;

    fn check(path: &str, expected: Value) {
        let object = json!({
            "spec": {"list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}], "a.b": {"c": true}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]},
        });
        let path = JsonPath::parse(path).map(|p| p.find(&object).into_iter().cloned().collect::<Vec<_>>());
        assert_eq!(path.map_or(Value::Null, Value::from), expected);
    }

    #[test]
    fn paths() {
        check(".spec.list[0].n", json!(["a"]));
        check(".spec.list[-1].n", json!(["b"]));
        check(".spec.list[*].v", json!([1, 2]));
        check(".spec.list[0:1].v", json!([1]));
        check(r".spec.a\.b.c", json!([true]));
        check(".spec['a.b'].c", json!([true]));
        check(r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"]));
        check(".spec.list[?(@.v>1)].n", json!(["b"]));
        check("..type", json!(["Ready", "Done"]));
        check(".nothing.here", json!([]));
        check(".spec.list[", Value::Null);
    }
}
