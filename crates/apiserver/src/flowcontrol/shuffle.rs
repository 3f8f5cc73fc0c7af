//! Shuffle sharding: a flow's hash deals it a hand of queues, so that two flows rarely share all of theirs.

/// Deals the `hand` cards out of `deck` that a hash says; upstream's deal, card for card.
pub(super) fn deal(mut hash: u64, deck: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut left = [0; LARGEST_HAND];
    let hand = hand.min(LARGEST_HAND).min(deck);
    for (i, card) in left.iter_mut().take(hand).enumerate() {
        let among = (deck - i) as u64;
        *card = (hash % among) as usize;
        hash /= among;
    }
    (0..hand).map(move |i| {
        // A card's number among those that are left becomes its number in the deck.
        (0..i).rev().fold(left[i], |card, j| if card >= left[j] { card + 1 } else { card })
    })
}

const LARGEST_HAND: usize = 15;

/// The hash of a flow: the schema that matched it, and what tells it from others of that schema.
pub(super) fn hash(schema: &str, distinguisher: &str) -> u64 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(schema.as_bytes());
    context.update(&[0]);
    context.update(distinguisher.as_bytes());
    let digest = context.finish();
    digest.as_ref().iter().take(8).rev().fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands() {
        let hand = |hash, deck, hand| deal(hash, deck, hand).collect::<Vec<_>>();
        assert_eq!(hand(0, 4, 4), [0, 1, 2, 3]);
        assert_eq!(hand(1, 4, 4), [1, 0, 2, 3]);
        assert_eq!(hand(23, 4, 4), [3, 2, 1, 0]);
        assert_eq!(hand(15, 4, 4), [3, 0, 2, 1]);
        for hash in 0..2000 {
            let mut cards = hand(hash * 7919, 64, 6);
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), 6);
            assert!(cards.iter().all(|card| *card < 64));
        }
    }

    #[test]
    fn hashes() {
        assert_ne!(hash("a", "b"), hash("ab", ""));
        assert_eq!(hash("global-default", "jo"), hash("global-default", "jo"));
    }
}
