//! Values as they are written.

/// A value as JSON writes it; whatever serializes may stand for a part of it, and text in parentheses for a name.
///
/// # Panics
///
/// Where what stands for a part does not serialize, or not to JSON.
#[macro_export]
macro_rules! json {
    (null) => {
        $crate::value::Value::Null
    };
    ([$($items:tt)*]) => {
        $crate::value::Value::Array($crate::json_items!([] $($items)*))
    };
    ({$($members:tt)*}) => {{
        #[allow(unused_mut)]
        let mut members = $crate::value::Map::new();
        $crate::json_members!(members $($members)*);
        $crate::value::Value::Object(members)
    }};
    ($value:expr) => {
        $crate::value::literal::part(&$value)
    };
}

/// The items of an array: those that are read, and those that are not yet.
#[doc(hidden)]
#[macro_export]
macro_rules! json_items {
    ([$($item:expr,)*]) => {
        ::std::vec![$($item),*]
    };
    ([$($item:expr,)*] null $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($item,)* $crate::json!(null),] $($($rest)*)?)
    };
    ([$($item:expr,)*] [$($next:tt)*] $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($item,)* $crate::json!([$($next)*]),] $($($rest)*)?)
    };
    ([$($item:expr,)*] {$($next:tt)*} $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($item,)* $crate::json!({$($next)*}),] $($($rest)*)?)
    };
    ([$($item:expr,)*] $next:expr $(, $($rest:tt)*)?) => {
        $crate::json_items!([$($item,)* $crate::json!($next),] $($($rest)*)?)
    };
}

/// Puts members into an object, one after the other.
#[doc(hidden)]
#[macro_export]
macro_rules! json_members {
    ($members:ident) => {};
    ($members:ident $name:tt: null $(, $($rest:tt)*)?) => {
        $members.insert($crate::value::Key::from($name), $crate::json!(null));
        $crate::json_members!($members $($($rest)*)?);
    };
    ($members:ident $name:tt: [$($value:tt)*] $(, $($rest:tt)*)?) => {
        $members.insert($crate::value::Key::from($name), $crate::json!([$($value)*]));
        $crate::json_members!($members $($($rest)*)?);
    };
    ($members:ident $name:tt: {$($value:tt)*} $(, $($rest:tt)*)?) => {
        $members.insert($crate::value::Key::from($name), $crate::json!({$($value)*}));
        $crate::json_members!($members $($($rest)*)?);
    };
    ($members:ident $name:tt: $value:expr $(, $($rest:tt)*)?) => {
        $members.insert($crate::value::Key::from($name), $crate::json!($value));
        $crate::json_members!($members $($($rest)*)?);
    };
}

/// What an expression serializes to.
#[doc(hidden)]
pub fn part<T: serde::Serialize + ?Sized>(value: &T) -> super::Value {
    super::to_value(value).unwrap_or_else(|error| panic!("no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::value::Value;

    #[test]
    fn the_library_writes_the_same() {
        let (text, number, name) = ("x", Some(3), "of a variable");
        macro_rules! both {
            ($($json:tt)+) => {
                assert_eq!(Value::from(serde_json::json!($($json)+)), crate::json!($($json)+))
            };
        }
        both!(null);
        both!(-1);
        both!(text);
        both!([]);
        both!({});
        both!([null, [1, [2]], {"a": []}, text.len() + 1, number, text.repeat(2).len(),]);
        both!({
            "a": null, "b": [1, {"c": text}], "d": {"e": {}, "f": number}, name: true, text: (text, 2),
            (format!("{text}y")): -1.5, "of": if text.is_empty() { 1 } else { 2 }, "a": "again",
        });
    }
}
