//! Sets of processors as the kernel writes them: `0-3,7`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Processors by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet(pub(crate) BTreeSet<u32>);

impl CpuSet {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn union(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.union(&other.0).copied().collect())
    }

    pub(crate) fn difference(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.difference(&other.0).copied().collect())
    }

    pub(crate) fn is_subset(&self, other: &CpuSet) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<T: IntoIterator<Item = u32>>(all: T) -> Self {
        CpuSet(all.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = all.next() {
            let mut last = first;
            while all.peek() == Some(&(last + 1)) {
                last += 1;
                all.next();
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number =
                |word: &str| word.trim().parse::<u32>().map_err(|_| format!("{text:?} is no list of CPUs"));
            let (first, last) = (number(first)?, number(last)?);
            // No machine has as many; a slip of the pen is not to fill the memory.
            if first > last || last > 1 << 16 {
                return Err(format!("{text:?} is no list of CPUs"));
            }
            out.extend(first..=last);
        }
        Ok(CpuSet(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_written() {
        for (text, want) in [("", ""), ("0", "0"), ("0-3,7", "0-3,7"), ("3,1,2", "1-3"), ("5,7-7", "5,7")] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), want);
        }
        for bad in ["a", "3-1", "1-", "0-99999999"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
    }
}
