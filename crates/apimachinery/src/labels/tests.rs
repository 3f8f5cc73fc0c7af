use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn text_is_read_and_shown_canonically() {
    for (text, want) in [
        ("", ""),
        ("x=a", "x=a"),
        ("x==a", "x==a"),
        (" z , a!=b , !c", "a!=b,!c,z"),
        ("x in (c, a,b,a)", "x in (a,b,c)"),
        ("x notin (a)", "x notin (a)"),
        ("x in ()", "x in ()"),
        ("x in (,a)", "x in (,a)"),
        ("x in (a,)", "x in (,a)"),
        ("x>1,y<2", "x>1,y<2"),
        ("x=,y", "x=,y"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("x=in", "x=in"),
        ("a,b=", "a,b="),
        ("example.com/a=b", "example.com/a=b"),
        ("x=a,", "found '', expected: identifier after ','"),
        (",x", "found ',', expected: !, identifier, or 'end of string'"),
        ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
        ("x=a b", "found 'b', expected: ',' or 'end of string'"),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ("x in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
        ("x in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        ("x===a", "unable to parse requirement: found '=', expected: identifier"),
        (
            "x>a",
            "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "x=-a",
            "unable to parse requirement: values[0][x]: Invalid value: \"-a\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            "-x",
            "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
    ] {
        let got =
            Selector::parse(text).map_or_else(|error| error.to_string(), |selector| selector.to_string());
        assert_eq!(got, want, "{text}");
    }
}

#[test]
fn selectors_match() {
    for (selector, set, want) in [
        ("", "", true),
        ("x=a", "x=a", true),
        ("x=a", "x=b", false),
        ("x!=a", "", true),
        ("x in (a,b),y", "x=b,y=", true),
        ("x notin (a)", "x=a", false),
        ("x notin (a)", "y=a", true),
        ("!x", "x=", false),
        ("x>1", "x=2", true),
        ("x>1", "x=1", false),
        ("x<1", "x=z", false),
        ("x<1", "", false),
    ] {
        assert_eq!(Selector::parse(selector).unwrap().matches(&labels(set)), want, "{selector} {set}");
    }
    assert!(!Selector::nothing().matches(&labels("")));
    assert_eq!(Selector::parse("x in (a),y").unwrap().requires_exact_match("x"), Some("a"));
}

#[test]
fn label_selectors_convert() {
    for (json, want) in [
        ("null", ""),
        ("{}", ""),
        (
            r#"{"matchLabels":{"b":"1"},"matchExpressions":[{"key":"a","operator":"In","values":["y","x"]},{"key":"c","operator":"DoesNotExist"}]}"#,
            "a in (x,y),b=1,!c",
        ),
        (
            r#"{"matchExpressions":[{"key":"a","operator":"in"}]}"#,
            "\"in\" is not a valid label selector operator",
        ),
        (
            r#"{"matchExpressions":[{"key":"a","operator":"In"}]}"#,
            "values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty",
        ),
    ] {
        let selector: Option<LabelSelector> = serde_json::from_str(json).unwrap();
        let got = Selector::from_label_selector(selector.as_ref());
        assert_eq!(got.map_or_else(|error| error.to_string(), |selector| selector.to_string()), want);
    }
    assert!(Selector::from_label_selector(None).unwrap().is_nothing());
    assert_eq!(format_label_selector(Some(&LabelSelector::default())), "<none>");
}

proptest::proptest! {
    #[test]
    fn canonical_text_is_stable(text in "[a-c!=()<>, in]{0,16}") {
        if let Ok(selector) = Selector::parse(&text) {
            let again = Selector::parse(&selector.to_string()).unwrap();
            proptest::prop_assert_eq!(again.to_string(), selector.to_string());
        }
    }

    #[test]
    fn nothing_panics(text in "\\PC*") {
        let _ = Selector::parse(&text);
    }
}
