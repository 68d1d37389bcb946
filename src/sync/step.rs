//! What is to be done about the chain, from our tip and the node's.

use bitcoin::BlockHash;

use crate::chain::Height;

/// What is to be done about the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Our tip is the node's.
    Idle,
    /// Blocks follow on our tip, up to this height.
    Connect { to: Height },
    /// Our branch has been left: all above `fork` goes, and blocks up to `to` come.
    Reorganize { fork: Height, to: Height },
    /// Not even the genesis block is there yet.
    Begin { to: Height },
}

/// Decides from our tip and the node's best block. `fork` is the highest height, at most our tip's and
/// the node's, where both have the same block; asked for only where it matters.
pub fn decide<E>(
    ours: Option<(Height, BlockHash)>,
    best: (Height, BlockHash),
    fork: impl FnOnce(Height) -> Result<Height, E>,
) -> Result<Step, E> {
    let Some((height, hash)) = ours else {
        return Ok(Step::Begin { to: best.0 });
    };
    if hash == best.1 {
        return Ok(Step::Idle);
    }
    let fork = fork(height.min(best.0))?;
    Ok(match fork {
        fork if fork < height => Step::Reorganize { fork, to: best.0 },
        _ if best.0 > height => Step::Connect { to: best.0 },
        _ => Step::Idle,
    })
}

/// The highest height at most `top` where two chains agree, by halving: below the fork they agree, above
/// they don't. Both have the same genesis block.
pub fn find_fork<E>(
    top: Height,
    mut agrees: impl FnMut(Height) -> Result<bool, E>,
) -> Result<Height, E> {
    // Most reorgs are one or two blocks deep: step down in growing strides first.
    let (mut low, mut high, mut stride) = (0, top + 1, 1);
    let mut probe = top;
    while probe > 0 {
        if agrees(probe)? {
            low = probe;
            break;
        }
        high = probe;
        probe = probe.saturating_sub(stride);
        stride *= 2;
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if agrees(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bitcoin::hashes::Hash;
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u8) -> BlockHash {
        BlockHash::from_byte_array([number; 32])
    }

    proptest! {
        #[test]
        fn the_fork_is_found_with_few_questions(top in 0u32..1_000_000, below in 0u32..1_000_000) {
            let fork = top.saturating_sub(below);
            let mut questions = 0;
            let found = find_fork(top, |height| {
                questions += 1;
                Ok::<_, Infallible>(height <= fork)
            });
            prop_assert_eq!(found, Ok(fork));
            prop_assert!(questions <= 2 * 20 + 2, "{} questions", questions);
        }
    }

    #[test]
    fn each_relation_of_the_two_tips_has_its_step() {
        let decide = |ours, best, fork| decide(ours, best, |_| Ok::<_, Infallible>(fork)).unwrap();
        let ours = Some((7, hash(7)));
        assert_eq!(decide(None, (3, hash(3)), 0), Step::Begin { to: 3 });
        assert_eq!(decide(ours, (7, hash(7)), 7), Step::Idle);
        assert_eq!(decide(ours, (9, hash(9)), 7), Step::Connect { to: 9 });
        assert_eq!(
            decide(ours, (9, hash(9)), 5),
            Step::Reorganize { fork: 5, to: 9 }
        );
        assert_eq!(
            decide(ours, (7, hash(8)), 6),
            Step::Reorganize { fork: 6, to: 7 }
        );
        // The node was rolled back.
        assert_eq!(
            decide(ours, (4, hash(4)), 4),
            Step::Reorganize { fork: 4, to: 4 }
        );
    }
}
