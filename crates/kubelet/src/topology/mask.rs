//! Sets of NUMA nodes, as hints speak of them. Upstream: `topologymanager/bitmask`.

/// Nodes by their numbers, of which there are 64 at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mask(u64);

impl Mask {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn count(self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(0)
    }

    pub(crate) fn nodes(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |node| self.0 & (1 << node) != 0)
    }

    pub(crate) fn has(self, node: u32) -> bool {
        node < 64 && self.0 & (1 << node) != 0
    }

    pub(crate) fn has_any(self, mut nodes: impl Iterator<Item = u32>) -> bool {
        nodes.any(|node| self.has(node))
    }

    pub(crate) fn and(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }

    pub(crate) fn covers(self, other: Mask) -> bool {
        self.0 & other.0 == other.0
    }

    /// Fewer nodes, or as many with lower numbers.
    pub(crate) fn is_narrower_than(self, other: Mask) -> bool {
        (self.count(), self.0) < (other.count(), other.0)
    }
}

impl FromIterator<u32> for Mask {
    fn from_iter<T: IntoIterator<Item = u32>>(nodes: T) -> Self {
        Mask(nodes.into_iter().filter(|node| *node < 64).fold(0, |mask, node| mask | 1 << node))
    }
}

/// Every set of some of these nodes but the empty one: the small ones first, among equals those of low numbers.
pub(crate) fn subsets(nodes: &[u32]) -> Vec<Mask> {
    fn of_size(nodes: &[u32], size: usize, so_far: Mask, out: &mut Vec<Mask>) {
        if so_far.count() == size {
            return out.push(so_far);
        }
        for (i, node) in nodes.iter().enumerate() {
            of_size(&nodes[i + 1..], size, Mask(so_far.0 | 1 << node), out);
        }
    }
    let nodes: Vec<u32> = nodes.iter().copied().filter(|node| *node < 64).collect();
    let mut out = Vec::new();
    for size in 1..=nodes.len() {
        of_size(&nodes, size, Mask::default(), &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sets_small_ones_first() {
        let shown: Vec<Vec<u32>> =
            subsets(&[0, 1, 3]).into_iter().map(|mask| mask.nodes().collect()).collect();
        let want: [&[u32]; 7] = [&[0], &[1], &[3], &[0, 1], &[0, 3], &[1, 3], &[0, 1, 3]];
        assert_eq!(shown, want);
    }
}
