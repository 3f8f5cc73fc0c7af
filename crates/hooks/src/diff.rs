//! What is different between two texts, for the messages of fields that do not change: upstream's own unified diff, whose
//! matches are those of Python's `difflib`. Upstream: `diff.Diff`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

/// Lines that are shown around a change.
const CONTEXT: usize = 3;
/// In texts of at least this many lines, what is frequent does not make a match by itself.
const LONG: usize = 200;

/// A range of the first text's lines, and what stands in the second in its place.
struct Step {
    same: bool,
    a: Range<usize>,
    b: Range<usize>,
}

struct Lines<'a> {
    a: Vec<&'a str>,
    b: Vec<&'a str>,
    /// Where each line of `b` is, the frequent ones left out.
    places: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Lines<'a> {
    fn new(a: &'a str, b: &'a str) -> Self {
        let (a, b): (Vec<&str>, Vec<&str>) = (a.split('\n').collect(), b.split('\n').collect());
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        b.iter().enumerate().for_each(|(i, line)| places.entry(line).or_default().push(i));
        if b.len() >= LONG {
            places.retain(|_, at| at.len() <= b.len() / 100 + 1);
        }
        Self { a, b, places }
    }

    /// The longest run of equal lines within two ranges, the earliest of them: where it begins, and how long it is.
    fn longest(&self, a: &Range<usize>, b: &Range<usize>) -> (usize, usize, usize) {
        let (mut i, mut j, mut size) = (a.start, b.start, 0);
        // How long the run is that ends with the line before, and a certain one of `b`.
        let mut runs: HashMap<usize, usize> = HashMap::new();
        for at in a.clone() {
            let mut longer = HashMap::new();
            for &other in self.places.get(self.a[at]).into_iter().flatten().filter(|j| b.contains(j)) {
                let run = 1 + other.checked_sub(1).and_then(|j| runs.get(&j)).unwrap_or(&0);
                longer.insert(other, run);
                if run > size {
                    (i, j, size) = (at + 1 - run, other + 1 - run, run);
                }
            }
            runs = longer;
        }
        // What is frequent prolongs a run.
        while i > a.start && j > b.start && self.a[i - 1] == self.b[j - 1] {
            (i, j, size) = (i - 1, j - 1, size + 1);
        }
        while i + size < a.end && j + size < b.end && self.a[i + size] == self.b[j + size] {
            size += 1;
        }
        (i, j, size)
    }

    /// All runs within two ranges, in order.
    fn runs(&self, a: Range<usize>, b: Range<usize>, found: &mut Vec<(usize, usize, usize)>) {
        let (i, j, size) = self.longest(&a, &b);
        if size == 0 {
            return;
        }
        if a.start < i && b.start < j {
            self.runs(a.start..i, b.start..j, found);
        }
        found.push((i, j, size));
        if i + size < a.end && j + size < b.end {
            self.runs(i + size..a.end, j + size..b.end, found);
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut runs = Vec::new();
        self.runs(0..self.a.len(), 0..self.b.len(), &mut runs);
        runs.push((self.a.len(), self.b.len(), 0));
        let (mut steps, mut a, mut b): (Vec<Step>, _, _) = (Vec::new(), 0, 0);
        for (i, j, size) in runs {
            if a < i || b < j {
                steps.push(Step { same: false, a: a..i, b: b..j });
            }
            (a, b) = (i + size, j + size);
            match steps.last_mut() {
                Some(last) if last.same => (last.a.end, last.b.end) = (a, b),
                _ if size > 0 => steps.push(Step { same: true, a: i..a, b: j..b }),
                _ => {}
            }
        }
        steps
    }
}

fn push(hunks: &mut [Vec<Step>], step: Step) {
    if let Some(last) = hunks.last_mut() {
        last.push(step);
    }
}

/// The changes, those together whose surroundings touch.
fn hunks(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let count = steps.len();
    let mut hunks: Vec<Vec<Step>> = vec![Vec::new()];
    for (n, step) in steps.into_iter().enumerate() {
        if !step.same {
            push(&mut hunks, step);
            continue;
        }
        let length = step.a.len();
        let head = Step {
            same: true,
            a: step.a.start..step.a.start + length.min(CONTEXT),
            b: step.b.start..step.b.start + length.min(CONTEXT),
        };
        let tail = Step {
            same: true,
            a: step.a.end - length.min(CONTEXT)..step.a.end,
            b: step.b.end - length.min(CONTEXT)..step.b.end,
        };
        match (n == 0, n + 1 == count) {
            (true, true) => {}
            (true, false) => push(&mut hunks, tail),
            (false, true) => push(&mut hunks, head),
            _ if length > 2 * CONTEXT => {
                push(&mut hunks, head);
                hunks.push(vec![tail]);
            }
            _ => push(&mut hunks, step),
        }
    }
    hunks.retain(|hunk| hunk.iter().any(|step| !step.same));
    hunks
}

fn range(lines: &Range<usize>) -> String {
    match lines.len() {
        // Nothing stands behind the line before.
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        length => format!("{},{length}", lines.start + 1),
    }
}

/// The changed lines and some around them.
pub(super) fn unified(a: &str, b: &str) -> String {
    let lines = Lines::new(a, b);
    let mut out = String::new();
    for hunk in hunks(lines.steps()) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let (a, b) = (first.a.start..last.a.end, first.b.start..last.b.end);
        let _ = writeln!(out, "@@ -{} +{} @@", range(&a), range(&b));
        for step in &hunk {
            let mut show = |mark: char, lines: &[&str]| {
                for line in lines {
                    let _ = writeln!(out, "{mark}{line}");
                }
            };
            if step.same {
                show(' ', &lines.a[step.a.clone()]);
            } else {
                show('-', &lines.a[step.a.clone()]);
                show('+', &lines.b[step.b.clone()]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(a: &str, b: &str, expected: Expect) {
        expected.assert_eq(&unified(&a.replace(' ', "\n"), &b.replace(' ', "\n")));
    }

    #[test]
    fn changes_are_shown_with_what_is_around_them() {
        check("a b c", "a b c", expect![[""]]);
        check(
            "a b c d e f g",
            "a b c D e f g",
            expect![[r#"
                @@ -1,7 +1,7 @@
                 a
                 b
                 c
                -d
                +D
                 e
                 f
                 g
            "#]],
        );
        check(
            "1 2 3 4 5 6 7 8 9",
            "2 3 4 5 6 7 8 9 10",
            expect![[r#"
                @@ -1,4 +1,3 @@
                -1
                 2
                 3
                 4
                @@ -7,3 +6,4 @@
                 7
                 8
                 9
                +10
            "#]],
        );
    }

    #[test]
    fn the_longest_run_matches_first() {
        check(
            "a b",
            "a c a b",
            expect![[r#"
                @@ -1,2 +1,4 @@
                +a
                +c
                 a
                 b
            "#]],
        );
        check(
            "x",
            "y",
            expect![[r#"
            @@ -1 +1 @@
            -x
            +y
        "#]],
        );
    }

    #[test]
    fn frequent_lines_of_long_texts_only_prolong_a_run() {
        let many = ["x"; 250].join(" ");
        let count = |a: &str, b: &str| {
            unified(&format!("{a} {many}").replace(' ', "\n"), &format!("{b} {many}").replace(' ', "\n"))
                .lines()
                .count()
        };
        assert_eq!(count("b a", "c a"), 6);
        assert_eq!(count("b", "c"), 1 + 2 * 251);
    }
}
