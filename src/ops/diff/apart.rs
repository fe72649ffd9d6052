//! Where two chains part: only what lies above that can differ.
//!
//! A fold layer stands for several layers, so chains that look different may have a beginning in common. They
//! are compared layer by layer with each fold layer replaced by what it stands for; the common beginning ends
//! where both chains have an end of a member. (Within a fold layer no cut is possible: it does not hold what
//! came and went among the layers it stands for.)

use crate::fault::Result;
use crate::store::{LayerId, RunId};

/// What a view is mounted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ops) enum Member {
    /// A layer.
    Layer(LayerId),
    /// The upper of a run.
    Upper(RunId),
}

impl Member {
    /// Its directory, beneath base_dir.
    pub(in crate::ops) fn tree(&self) -> String {
        match self {
            Self::Layer(layer) => format!("layers/{layer}/fs"),
            Self::Upper(run) => format!("runs/{run}/layer/fs"),
        }
    }
}

/// What one chain has and the other has not: only there can paths differ. Chains that share a beginning are
/// cut where they part; a layer further up stands on another ground even if both have it. `stands_for` is
/// asked only if a fold layer can have a say.
pub(super) fn apart(
    from: &[Member],
    to: &[Member],
    stands_for: impl Fn(&LayerId) -> Result<Vec<LayerId>>,
) -> Result<Vec<Member>> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let (mut from, mut to) = (&from[common..], &to[common..]);
    if folded(from.first(), &stands_for)? || folded(to.first(), &stands_for)? {
        let (a, b) = (expanded(from, &stands_for)?, expanded(to, &stands_for)?);
        let (a, b) = common_ends(&a, &b);
        (from, to) = (&from[a..], &to[b..]);
    }
    let mut rests = [from, to].concat();
    rests.sort_unstable();
    rests.dedup();
    Ok(rests)
}

fn folded(
    member: Option<&Member>,
    stands_for: impl Fn(&LayerId) -> Result<Vec<LayerId>>,
) -> Result<bool> {
    match member {
        Some(Member::Layer(layer)) => Ok(stands_for(layer)? != [*layer]),
        Some(Member::Upper(_)) | None => Ok(false),
    }
}

/// For each member what it stands for.
fn expanded(
    chain: &[Member],
    stands_for: impl Fn(&LayerId) -> Result<Vec<LayerId>>,
) -> Result<Vec<Vec<Member>>> {
    let one = |member: &Member| match member {
        Member::Layer(layer) => {
            Ok(stands_for(layer)?.into_iter().map(Member::Layer).collect::<Vec<_>>())
        }
        upper @ Member::Upper(_) => Ok(vec![*upper]),
    };
    chain.iter().map(one).collect()
}

/// How many members of each chain make the longest beginning that both have in common.
fn common_ends(a: &[Vec<Member>], b: &[Vec<Member>]) -> (usize, usize) {
    let (mut cut, mut at) = ((0, 0), (0, 0));
    let (mut left, mut right) = (Vec::<Member>::new(), Vec::<Member>::new());
    loop {
        // The shorter one grows, so that neither ends within the other for long.
        let next = if left.len() <= right.len() { a.get(at.0) } else { b.get(at.1) };
        let Some(next) = next else { return cut };
        if left.len() <= right.len() {
            left.extend(next);
            at.0 += 1;
        } else {
            right.extend(next);
            at.1 += 1;
        }
        if left.iter().zip(&right).any(|(a, b)| a != b) {
            return cut;
        }
        if left.len() == right.len() {
            cut = at;
            left.clear();
            right.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers by one letter; a capital letter is a fold layer.
    fn id(letter: char) -> LayerId {
        let code = format!("{:02}", u32::from(letter) % 100);
        format!("00000000000000000000000{}0", &code).parse().expect("an id")
    }

    fn parted(from: &str, to: &str, folds: &[(char, &str)]) -> Vec<Member> {
        let chain = |text: &str| text.chars().map(|c| Member::Layer(id(c))).collect::<Vec<_>>();
        let stands_for = |layer: &LayerId| {
            let found = folds.iter().find(|(fold, _)| id(*fold) == *layer);
            Ok(found.map_or(vec![*layer], |(_, for_)| for_.chars().map(id).collect()))
        };
        apart(&chain(from), &chain(to), stands_for).expect("apart")
    }

    fn members(text: &str) -> Vec<Member> {
        let mut all: Vec<_> = text.chars().map(|c| Member::Layer(id(c))).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn only_layers_that_one_side_has_are_looked_at() {
        for (from, to, expected) in [
            ("", "a", "a"),
            ("a", "ab", "b"),
            ("ab", "a", "b"),
            ("ab", "ac", "bc"),
            ("abc", "adc", "bcd"),
            ("a", "a", ""),
        ] {
            assert_eq!(parted(from, to, &[]), members(expected), "{from} {to}");
        }
    }

    #[test]
    fn a_fold_layer_is_what_it_stands_for() {
        let folds = [('F', "bcd"), ('G', "bcdef"), ('H', "bc")];
        for (from, to, expected) in [
            // All of it is common.
            ("abcd", "aF", ""),
            ("aF", "abcd", ""),
            ("abcde", "aFe", ""),
            ("abcde", "aFef", "f"),
            ("abcdx", "aFey", "xey"),
            // Folded once more.
            ("aFefg", "aGgh", "h"),
            ("aHd", "aF", ""),
            ("aHde", "aFef", "f"),
            // The chains part within it.
            ("abc", "aF", "bcF"),
            ("abcx", "aFy", "bcxFy"),
            ("aF", "aGg", "FGg"),
            ("aFe", "aG", "FeG"),
            ("axF", "aF", "xF"),
            // Another ground.
            ("xbcd", "aF", "xbcdaF"),
        ] {
            assert_eq!(parted(from, to, &folds), members(expected), "{from} {to}");
        }
    }

    #[test]
    fn chains_without_fold_layers_are_not_read() {
        let chain = |text: &str| text.chars().map(|c| Member::Layer(id(c))).collect::<Vec<_>>();
        let read = std::cell::RefCell::new(Vec::new());
        let stands_for = |layer: &LayerId| {
            read.borrow_mut().push(*layer);
            Ok(vec![*layer])
        };
        apart(&chain("abcdef"), &chain("abcdefg"), stands_for).expect("apart");
        assert_eq!(*read.borrow(), [id('g')]);
    }
}
