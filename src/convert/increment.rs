//! A disk that is to be written over a backing file: its map says data wherever either of the two has some, since both must be
//! read there to know whether they differ.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, Fingerprint, Hints, SectorSize, Visit};
use crate::error::Result;

/// The bytes of `top`, with the map of both.
#[derive(Debug)]
pub(super) struct Increment {
    pub(super) top: Arc<dyn Disk>,
    pub(super) base: Arc<dyn Disk>,
}

impl Increment {
    /// Tells what the base has in `range`, where the top has zeros.
    fn below_zeros(&self, zeros: &Extent, visit: &mut Visit<'_>) -> Result<ControlFlow<()>> {
        let Range { start, end } = zeros.range;
        let shared = end.min(self.base.len());
        let mut flow = ControlFlow::Continue(());
        if start < shared {
            self.base.extents(start..shared, &mut |extent| {
                let kind = if extent.kind.is_zero() { zeros.kind } else { ExtentKind::Data };
                flow = visit(Extent { range: extent.range, kind, depth: zeros.depth, place: None });
                flow
            })?;
        }
        let rest = start.max(shared)..end;
        if flow.is_continue() && !rest.is_empty() {
            flow = visit(Extent { range: rest, ..zeros.clone() });
        }
        Ok(flow)
    }
}

impl Disk for Increment {
    fn len(&self) -> u64 {
        self.top.len()
    }

    fn sector_size(&self) -> SectorSize {
        self.top.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.top.read_at(buf, offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut failed = Ok(());
        self.top.extents(range, &mut |extent| {
            if !extent.kind.is_zero() {
                return visit(extent);
            }
            match self.below_zeros(&extent, visit) {
                Ok(flow) => flow,
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed
    }

    fn prefetch(&self, range: Range<u64>) {
        self.top.prefetch(range);
    }

    fn hints(&self) -> Hints {
        self.top.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Fingerprint::of_disks([&self.top, &self.base])
    }

    fn describe(&self) -> (&'static str, String) {
        ("increment", format!("{} over {}", self.top.name(), self.base.name()))
    }

    fn name(&self) -> String {
        self.top.name()
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.top), Arc::clone(&self.base)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Concat, Memory, Zero, collect_extents};

    #[test]
    fn what_either_has_is_data() {
        let zeros = |len| Checked::wrap(Zero { len }) as Arc<dyn Disk>;
        let data = |len| Checked::wrap(Memory::new(vec![1; len])) as Arc<dyn Disk>;
        let top: Arc<dyn Disk> = Checked::wrap(Concat::new("top", vec![data(100), zeros(900)]));
        let base: Arc<dyn Disk> = Checked::wrap(Concat::new("base", vec![zeros(300), data(200), zeros(50)]));
        let both = Checked::wrap(Increment { top, base });
        let found: Vec<_> = collect_extents(&*both, 0..1000).unwrap();
        let data: Vec<_> =
            found.iter().filter(|extent| !extent.kind.is_zero()).map(|extent| extent.range.clone()).collect();
        assert_eq!(data, [0..100, 300..500]);
        assert_eq!(found.last().unwrap().range.end, 1000);
    }
}
