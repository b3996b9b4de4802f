//! Changes of parts of large files.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::{Change, length};

/// Bytes that are compared at once.
const BLOCK: usize = 4096;

/// A part of a file that is replaced. Only the last one of a file may change its length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What was there.
    #[serde(rename = "bytes_before", serialize_with = "length")]
    pub before: Vec<u8>,
    /// What comes there.
    #[serde(rename = "bytes", serialize_with = "length")]
    pub after: Vec<u8>,
}

impl Change {
    /// The change that makes `new` of `old`.
    pub(super) fn patch(old: &[u8], new: &[u8]) -> Self {
        let common = old.len().min(new.len());
        let (old_start, old_tail) = old.split_at(common);
        let (new_start, new_tail) = new.split_at(common);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = 0_u64;
        let mut goes_on = false;
        let tail = [(old_tail, new_tail)].into_iter().filter(|(old, new)| !old.is_empty() || !new.is_empty());
        for (old, new) in old_start.chunks(BLOCK).zip(new_start.chunks(BLOCK)).chain(tail) {
            match pieces.last_mut() {
                _ if old == new => {}
                Some(last) if goes_on => {
                    last.before.extend(old);
                    last.after.extend(new);
                }
                _ => pieces.push(Piece { offset: at, before: old.to_vec(), after: new.to_vec() }),
            }
            goes_on = old != new;
            at = at.saturating_add(u64::try_from(old.len()).unwrap_or(u64::MAX));
        }
        let size = |content: &[u8]| u64::try_from(content.len()).unwrap_or(u64::MAX);
        Self::Patch { size_before: size(old), size: size(new), pieces }
    }
}

/// `content` with its pieces replaced; `None` when it is not what the change was made for.
pub(super) fn apply(content: Vec<u8>, size: u64, pieces: &[Piece]) -> Option<Vec<u8>> {
    let mut content = content;
    for piece in pieces {
        let start = usize::try_from(piece.offset).ok()?;
        let end = start.checked_add(piece.before.len())?;
        if content.get(start..end)? != piece.before {
            return None;
        }
        content.splice(start..end, piece.after.iter().copied());
    }
    (u64::try_from(content.len()).ok()? == size).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(change: Change) -> (u64, u64, Vec<Piece>) {
        match change {
            Change::Patch { size_before, size, pieces } => (size_before, size, pieces),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_differs_is_kept() {
        let old = vec![1; 5 * BLOCK];
        let mut new = old.clone();
        new[BLOCK] = 2;
        new[2 * BLOCK] = 2;
        new[4 * BLOCK] = 2;
        let (_, _, pieces) = parts(Change::patch(&old, &new));
        let places: Vec<_> = pieces.iter().map(|piece| (piece.offset, piece.after.len())).collect();
        assert_eq!(places, [(4096, 2 * BLOCK), (4 * 4096, BLOCK)]);
        assert!(parts(Change::patch(&old, &old)).2.is_empty());
        assert_eq!(apply(new, 5 * 4096, &pieces), None);
    }

    proptest::proptest! {
        #[test]
        fn makes_one_of_the_other_and_back(
            old in proptest::collection::vec(0_u8..3, 0..20_000),
            changes in proptest::collection::vec((0_usize..20_000, 0_u8..3), 0..6),
            len in 0_usize..20_000,
        ) {
            let mut new = old.clone();
            new.resize(len, 1);
            for (at, value) in changes {
                if let Some(byte) = new.get_mut(at) {
                    *byte = value;
                }
            }
            let (before, size, pieces) = parts(Change::patch(&old, &new));
            let turned: Vec<Piece> = pieces
                .iter()
                .map(|piece| Piece { offset: piece.offset, before: piece.after.clone(), after: piece.before.clone() })
                .collect();
            let made = apply(old.clone(), size, &pieces);
            proptest::prop_assert_eq!(made.as_ref(), Some(&new));
            proptest::prop_assert_eq!(apply(new, before, &turned), Some(old));
        }
    }
}
