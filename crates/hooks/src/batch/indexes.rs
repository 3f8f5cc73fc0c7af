//! Indexes of a job's pods as text: `1,3-5,7`. Upstream: `validateIndexesFormat`.

/// First and last index of `3` or of `3-5`, all below `completions`.
fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let number = |part: &str| match part.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {part:?}")),
        Ok(number) => i32::try_from(number)
            .ok()
            .filter(|number| *number < completions)
            .ok_or_else(|| format!("too large index: {part:?}")),
    };
    let first = number(parts[0])?;
    let Some(last) = parts.get(1) else { return Ok((first, first)) };
    let last = number(last)?;
    if first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

/// How many there are.
pub(super) fn count_indexes(text: &str, completions: i32) -> Result<i32, String> {
    let mut before: Option<i32> = None;
    let mut count = 0;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(before) = before.filter(|before| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        count += last - first + 1;
        before = Some(last);
    }
    Ok(count)
}

/// The first index that both texts have; what cannot be read is told elsewhere.
pub(super) fn overlap(completed: &str, failed: &str, completions: i32) -> Option<i32> {
    let intervals = |text: &str| -> Vec<(i32, i32)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (completed, failed) = (intervals(completed), intervals(failed));
    let both = completed.iter().flat_map(|a| failed.iter().map(move |b| (a, b)));
    both.filter(|(a, b)| a.0 <= b.1 && b.0 <= a.1).map(|(a, b)| a.0.max(b.0)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        let check = |text: &str, expected: Result<i32, &str>| {
            assert_eq!(count_indexes(text, 10), expected.map_err(str::to_owned), "{text}");
        };
        check("", Ok(0));
        check("1,3-5,7", Ok(5));
        check("3-3", Err("non-increasing order, previous: 3, current: 3"));
        check("3,1", Err("non-increasing order, previous: 3, current: 1"));
        check("9,10", Err("too large index: \"10\""));
        check("a", Err("cannot convert string to integer for index: \"a\""));
        check(
            "1-2-3",
            Err(
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        );
    }

    #[test]
    fn what_failed_and_completed_is_found() {
        assert_eq!(overlap("1,3-5", "2,6", 10), None);
        assert_eq!(overlap("1,3-5", "4-6", 10), Some(4));
        assert_eq!(overlap("x,3", "3", 10), Some(3));
    }
}
