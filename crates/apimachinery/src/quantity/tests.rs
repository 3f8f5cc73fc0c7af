use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[test]
fn canonical_forms() {
    for (text, want) in [
        ("0", "0"),
        ("0Ki", "0"),
        ("-0", "0"),
        ("+", "0"),
        ("00", "0"),
        (".", "0"),
        ("Mi", "0"),
        ("1", "1"),
        ("-1", "-1"),
        ("1000", "1k"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"),
        ("1024Ki", "1Mi"),
        ("512Ki", "512Ki"),
        ("0.001Ki", "1024m"),
        ("0.5Ki", "512"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.1m", "100u"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("12e6", "12e6"),
        ("1e1", "10"),
        ("1e-3", "1e-3"),
        ("1e-4", "100e-6"),
        ("1e1000", "10e999"),
        ("1e-1000", "1e-9"),
        ("1E", "1E"),
        ("1000P", "1E"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("16Ei", "9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("-16Ei", "-9223372036854775807"),
        ("+5Gi", "+5Gi"),
        ("005Gi", "005Gi"),
        ("1.500", "1.500"),
        ("1.000", "1"),
        ("0.500", "500m"),
        (".5", "500m"),
        ("5.", "5."),
        ("8Gi", "8Gi"),
        ("1000000000000000000000k", "1000000E"),
        ("1G", "1G"),
        ("1.1Gi", "1181116006400m"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ] {
        assert_eq!(parse(text).to_string(), want, "{text}");
        assert_eq!(crate::value::to_value(parse(text)).unwrap(), want);
    }
}

#[test]
fn errors() {
    use ParseQuantityError as E;
    for (text, want) in [
        ("", E::Format),
        ("1.1.M", E::Format),
        ("1 ", E::Format),
        ("1Mix", E::Format),
        ("1e5x", E::Format),
        ("x", E::Format),
        ("abc", E::Format),
        ("1i", E::Suffix),
        ("1Me", E::Suffix),
        ("1m3", E::Suffix),
        ("1e", E::Suffix),
        ("1e99999999999", E::Suffix),
        (".Ei", E::Numeric),
        ("Pi", E::Numeric),
        ("e-10", E::Numeric),
        ("é", E::Format),
    ] {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), want, "{text}");
    }
}

#[test]
fn readings() {
    for (text, value, milli, whole) in [
        ("1500m", 2, 1500, None),
        ("-1500m", -2, -1500, None),
        ("1000m", 1, 1000, Some(1)),
        ("1Ki", 1024, 1_024_000, Some(1024)),
        ("1n", 1, 1, None),
        ("1e1000", i64::MAX, i64::MAX, None),
        ("-1e40", i64::MIN, i64::MIN, None),
        ("0", 0, 0, Some(0)),
    ] {
        let quantity = parse(text);
        assert_eq!(
            (quantity.value(), quantity.milli_value(), quantity.as_i64()),
            (value, milli, whole),
            "{text}"
        );
    }
    assert_eq!(parse("1500m").as_f64(), 1.5);
    assert_eq!(parse("1e1000").as_f64(), f64::INFINITY);
}

#[test]
fn json_takes_strings_and_numbers() {
    for (json, want) in [
        ("\" 1Gi \"", "1Gi"),
        ("5", "5"),
        ("-5", "-5"),
        ("0.5", "500m"),
        ("null", "0"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        assert_eq!(serde_json::from_str::<Quantity>(json).unwrap().to_string(), want);
    }
    assert!(serde_json::from_str::<Quantity>("\"x\"").is_err());
    assert!(serde_json::from_str::<Quantity>("true").is_err());
}

#[test]
fn sums() {
    for (a, b, sum, difference) in [
        ("1", "500m", "1500m", "500m"),
        ("0", "1Gi", "1Gi", "-1Gi"),
        ("1Gi", "512Mi", "1536Mi", "512Mi"),
        ("1Gi", "1", "1073741825", "1073741823"),
        ("1e1000", "1", "10e999", "10e999"),
        ("1Ki", "24", "1048", "1k"),
        ("1", "1e1000", "10e999", "-10e999"),
    ] {
        let (mut plus, mut minus) = (parse(a), parse(a));
        plus.add(&parse(b));
        minus.sub(&parse(b));
        if a == "1e1000" || b == "1e1000" {
            // Not exact, but near, and no panic.
            assert!((plus.mantissa as f64).log10() + f64::from(plus.exponent) > 999.9);
        } else {
            assert_eq!((plus.to_string().as_str(), minus.to_string().as_str()), (sum, difference), "{a} {b}");
        }
    }
    let mut product = parse("1500m");
    product.mul(3);
    assert_eq!(product.to_string(), "4500m");
}

fn texts() -> impl Strategy<Value = String> {
    "[+-]?[0-9]{0,22}(\\.[0-9]{0,12})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,4}|E[0-9]{1,2})"
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn what_is_written_reads_as_the_same_amount(text in texts()) {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let again = parse(&quantity.to_string());
            prop_assert_eq!(&again, &quantity, "{} {}", text, quantity);
            let _ = (quantity.value(), quantity.milli_value(), quantity.as_f64());
        }
    }

    #[test]
    fn sums_commute_and_undo(a in texts(), b in texts()) {
        let (Ok(a), Ok(b)) = (a.parse::<Quantity>(), b.parse::<Quantity>()) else { return Ok(()) };
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.add(&b);
        ba.add(&a);
        prop_assert_eq!(&ab, &ba);
        if a.as_f64().abs() < 1e18 && b.as_f64().abs() < 1e18 {
            ab.sub(&b);
            prop_assert_eq!(&ab, &a);
        }
    }

    #[test]
    fn order_is_that_of_the_numbers(a in any::<i32>(), b in any::<i32>(), x in 0i32..6, y in 0i32..6) {
        let (left, right) = (i128::from(a) * 10i128.pow(x as u32), i128::from(b) * 10i128.pow(y as u32));
        prop_assert_eq!(Quantity::from_scaled(a.into(), x).cmp(&Quantity::from_scaled(b.into(), y)), left.cmp(&right));
    }
}
