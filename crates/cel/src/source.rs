//! The text of an expression, places in it, and what is wrong at them: `ERROR: <input>:1:5: …` with the
//! line and a caret, as cel-go writes it.

use std::fmt;

/// Where something is: a line from 1, and a column from 0 in code points. Upstream's `NoLocation` has -1 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: i32,
    /// From 0.
    pub column: i32,
}

impl Location {
    /// Nowhere.
    pub const NONE: Self = Self { line: -1, column: -1 };
}

/// The text of an expression.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    lines: Vec<String>,
    /// The offset at which each line begins, in code points.
    starts: Vec<u32>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let lines: Vec<String> = text.split('\n').map(String::from).collect();
        let mut starts = Vec::with_capacity(lines.len());
        let mut at = 0;
        for line in &lines {
            starts.push(at);
            at += line.chars().count() as u32 + 1;
        }
        Self { lines, starts }
    }

    fn is_empty(&self) -> bool {
        self.lines.len() == 1 && self.lines[0].is_empty()
    }

    pub(crate) fn location(&self, offset: u32) -> Location {
        // The end of nothing comes before its beginning.
        if self.is_empty() {
            return Location { line: 1, column: -1 };
        }
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        Location { line: line as i32, column: (offset - self.starts[line - 1]) as i32 }
    }

    fn line(&self, number: i32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.lines.get(index).map(String::as_str).filter(|_| !self.is_empty())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where.
    pub location: Location,
    /// What.
    pub message: String,
}

/// All that is wrong with an expression. Displays as upstream's `Issues.String()`.
#[derive(Clone, Debug)]
pub struct Issues {
    issues: Vec<Issue>,
    source: Source,
}

const REPORTED: usize = 100;
const LONGEST_SNIPPET: usize = 16_384;

impl Issues {
    pub(crate) const fn new(issues: Vec<Issue>, source: Source) -> Self {
        Self { issues, source }
    }

    /// Each of them, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter()
    }

    fn write_one(&self, f: &mut fmt::Formatter<'_>, issue: &Issue) -> fmt::Result {
        let Location { line, column } = issue.location;
        write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
        let Some(snippet) = self.source.line(line).filter(|line| line.len() <= LONGEST_SNIPPET) else {
            return Ok(());
        };
        write!(f, "\n | {}\n | ", snippet.replace('\t', " "))?;
        let mut characters = snippet.chars();
        for _ in 0..column {
            match characters.next() {
                None => break,
                // Upstream widens the pointer under what is not ASCII.
                Some(character) => f.write_str(if character.is_ascii() { "." } else { "\u{ff0e}" })?,
            }
        }
        let ascii = characters.next().is_none_or(|character| character.is_ascii());
        f.write_str(if ascii { "^" } else { "\u{ff3e}" })
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<_> = self.issues.iter().take(REPORTED).collect();
        sorted.sort_by_key(|issue| issue.location);
        for (at, issue) in sorted.into_iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            self.write_one(f, issue)?;
        }
        match self.issues.len().checked_sub(REPORTED) {
            Some(more) if more > 0 => write!(f, "\n{more} more errors were truncated"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Issues {}
