//! Sets of ids as lists of spans.

/// `count` ids from `first` on. Never empty; the last id is at most [`Span::LAST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Span {
    /// The highest id there is: 2^32 - 1 means "no id" to chown(2) and setresuid(2).
    pub const LAST: u32 = u32::MAX - 1;

    /// As many of `count` ids from `first` on as exist; `None` if that is none at all.
    pub(super) fn clipped(first: u64, count: u64) -> Option<Self> {
        Self::between(first, first.saturating_add(count))
    }

    /// The ids from `first` up to, and without, `end`.
    pub(super) fn between(first: u64, end: u64) -> Option<Self> {
        let end = end.min(u64::from(Self::LAST) + 1);
        let count = u32::try_from(end.checked_sub(first)?).ok().filter(|&count| count > 0)?;
        Some(Self { first: u32::try_from(first).ok()?, count })
    }

    /// One id alone.
    pub(super) fn one(id: u32) -> Option<Self> {
        Self::clipped(u64::from(id), 1)
    }

    /// The first id above the span, which need not exist.
    pub fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        u64::from(self.first) < other.end() && u64::from(other.first) < self.end()
    }

    fn common(self, other: Self) -> Option<Self> {
        Self::between(u64::from(self.first.max(other.first)), self.end().min(other.end()))
    }

    /// What is left of the span without the ids of `taken`: at most two pieces for each of them.
    pub(super) fn without(self, taken: &[Self]) -> Vec<Self> {
        taken.iter().fold(vec![self], |pieces, &hole| {
            pieces.into_iter().flat_map(|piece| piece.minus(hole)).flatten().collect()
        })
    }

    fn minus(self, hole: Self) -> [Option<Self>; 2] {
        [
            Self::between(u64::from(self.first), self.end().min(u64::from(hole.first))),
            Self::between(u64::from(self.first).max(hole.end()), self.end()),
        ]
    }
}

/// The part of `span` that lies in the set `held`, in the order of `held`.
pub(super) fn within(span: Span, held: &[Span]) -> Vec<Span> {
    held.iter().filter_map(|&one| span.common(one)).collect()
}

/// Whether all of `span` lies in the set `held`.
pub(super) fn covers(held: &[Span], span: Span) -> bool {
    span.without(held).is_empty()
}

/// The same set, sorted, with touching and overlapping spans made one.
pub(super) fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.first);
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if u64::from(span.first) <= last.end() => {
                let end = last.end().max(span.end());
                last.count = u32::try_from(end - u64::from(last.first)).unwrap_or(u32::MAX);
            }
            _ => out.push(span),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u32, count: u32) -> Span {
        Span { first, count }
    }

    #[test]
    fn clips_to_the_ids_there_are() {
        let table = [
            ((0, 0), None),
            ((5, 1), Some((5, 1))),
            ((0, u64::MAX), Some((0, u32::MAX))),
            ((u64::MAX, u64::MAX), None),
            ((u64::from(u32::MAX), 1), None),
            ((u64::from(Span::LAST), 9), Some((Span::LAST, 1))),
        ];
        for ((first, count), expected) in table {
            let expected = expected.map(|(first, count)| span(first, count));
            assert_eq!(Span::clipped(first, count), expected, "{first}+{count}");
        }
    }

    #[test]
    fn takes_away() {
        type Spans<'a> = &'a [(u32, u32)];
        let table: [(Spans<'_>, Spans<'_>); 6] = [
            (&[], &[(10, 10)]),
            (&[(0, 5)], &[(10, 10)]),
            (&[(10, 10)], &[]),
            (&[(12, 1)], &[(10, 2), (13, 7)]),
            (&[(0, 12), (18, 100)], &[(12, 6)]),
            (&[(10, 1), (19, 1)], &[(11, 8)]),
        ];
        for (taken, left) in table {
            let taken: Vec<_> = taken.iter().map(|&(a, n)| span(a, n)).collect();
            let left: Vec<_> = left.iter().map(|&(a, n)| span(a, n)).collect();
            assert_eq!(span(10, 10).without(&taken), left, "{taken:?}");
        }
    }

    #[test]
    fn covers_by_several() {
        assert!(covers(&[span(0, 1), span(1, 10)], span(0, 11)));
        assert!(!covers(&[span(0, 1), span(2, 10)], span(0, 11)));
        assert!(covers(&[span(0, u32::MAX)], span(Span::LAST, 1)));
        assert_eq!(within(span(5, 10), &[span(0, 6), span(8, 2)]), [span(5, 1), span(8, 2)]);
    }

    #[test]
    fn joins_what_touches() {
        let spans = vec![span(1, 65536), span(0, 1), span(70000, 1)];
        assert_eq!(joined(spans), [span(0, 65537), span(70000, 1)]);
    }
}
