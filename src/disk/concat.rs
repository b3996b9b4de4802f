//! Several disks end to end: the extents of a multi-file image.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::{Disk, Extent, Fingerprint, Hints, HostRange, Visit};
use crate::error::Result;

/// The parts, one after the other.
#[derive(Debug)]
pub struct Concat {
    label: String,
    /// Each part with the offset of its first byte, ascending.
    parts: Vec<(u64, Arc<dyn Disk>)>,
    len: u64,
}

/// What [`Concat::touch`] calls: the part, the range in it, the part's start.
type Touch<'a> = dyn FnMut(&dyn Disk, Range<u64>, u64) -> Result<ControlFlow<()>> + 'a;

impl Concat {
    /// All `parts` in order; empty parts are dropped.
    #[must_use]
    pub fn new(label: impl Into<String>, parts: Vec<Arc<dyn Disk>>) -> Self {
        let mut len = 0;
        let mut placed = Vec::with_capacity(parts.len());
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let start = len;
            len += part.len();
            placed.push((start, part));
        }
        Self { label: label.into(), parts: placed, len }
    }

    /// Calls `each` with every part that `range` touches, the range in the part, and the part's start.
    fn touch(&self, range: Range<u64>, each: &mut Touch<'_>) -> Result<()> {
        let first = self.parts.partition_point(|(start, part)| start + part.len() <= range.start);
        for (start, part) in self.parts.iter().skip(first) {
            if *start >= range.end {
                break;
            }
            let from = range.start.max(*start) - start;
            let to = range.end.min(start + part.len()) - start;
            if each(&**part, from..to, *start)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Disk for Concat {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        self.touch(offset..offset + rest.len() as u64, &mut |part, range, _| {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part.read_at(head, range.start)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.touch(range, &mut |part, range, start| {
            let mut flow = ControlFlow::Continue(());
            part.extents(range, &mut |extent| {
                let shifted = extent.range.start + start..extent.range.end + start;
                flow = visit(Extent { range: shifted, ..extent });
                flow
            })?;
            Ok(flow)
        })
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let mut found = None;
        self.touch(range, &mut |part, range, _| {
            found = part.host(range)?;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn prefetch(&self, range: Range<u64>) {
        let _ = self.touch(range, &mut |part, range, _| {
            part.prefetch(range);
            Ok(ControlFlow::Continue(()))
        });
    }

    fn hints(&self) -> Hints {
        self.parts.first().map_or_else(Hints::default, |(_, part)| part.hints())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Fingerprint::of_disks(self.parts.iter().map(|(_, part)| part))
    }

    fn describe(&self) -> (&'static str, String) {
        ("concat", self.label.clone())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        self.parts.iter().map(|(_, part)| Arc::clone(part)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, ExtentKind, Memory, Zero, collect_extents};

    #[test]
    fn reads_across_seams() {
        let disk = Checked::wrap(Concat::new(
            "two",
            vec![
                Checked::wrap(Memory::new(vec![1; 4])),
                Checked::wrap(Zero { len: 3 }),
                Checked::wrap(Zero { len: 0 }),
                Checked::wrap(Memory::new(vec![2; 4])),
            ],
        ));
        assert_eq!(disk.len(), 11);
        let mut buf = [9; 7];
        disk.read_at(&mut buf, 2).unwrap();
        assert_eq!(buf, [1, 1, 0, 0, 0, 2, 2]);
        let extents = collect_extents(&*disk, 3..8).unwrap();
        let kinds: Vec<_> = extents.iter().map(|e| (e.range.clone(), e.kind)).collect();
        assert_eq!(kinds, [(3..4, ExtentKind::Data), (4..7, ExtentKind::Hole), (7..8, ExtentKind::Data)]);
    }
}
