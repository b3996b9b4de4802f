//! The one read loop: layers of any format as one flat disk.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::cache::{Block, Class, Key, Pool};
use crate::disk::{Disk, Extent, ExtentKind, Fingerprint, Hints, HostRange, Latency, SectorSize, Visit};
use crate::error::{Error, Result};
use crate::format::{Layer, Place, Unit};
use crate::limits;
use crate::session::Session;

/// Data runs at least this long are asked for the holes of the file they lie in; for shorter ones a system call each would cost
/// more than it finds.
const WORTH_ASKING: u64 = 1 << 20;

/// A chain of layers, read as one disk. Bounds are the top layer's; where a lower layer is shorter, zeros follow.
#[derive(Debug)]
pub struct Image {
    /// The top first.
    layers: Vec<Tier>,
    len: u64,
    session: Arc<Session>,
    pool: Arc<Pool>,
}

/// A layer and the name of its decoded units in the pool.
#[derive(Debug)]
struct Tier {
    layer: Arc<dyn Layer>,
    /// One owner for each of the layer's files, in which a unit is known by its offset.
    owners: Vec<u32>,
}

/// Where a run of bytes of the image lives, through all layers.
#[derive(Debug)]
struct Located<'a> {
    len: u64,
    depth: u32,
    place: Found<'a>,
}

#[derive(Debug)]
enum Found<'a> {
    Data {
        file: &'a Arc<dyn Disk>,
        offset: u64,
    },
    Encoded {
        tier: &'a Tier,
        unit: Unit,
    },
    /// A layer says zeros.
    Zero,
    /// No layer has it.
    Hole,
}

impl Image {
    /// The disk that `layers` make, the top first.
    ///
    /// # Errors
    /// `disk.too-large`, `reference.depth`, or a usage error when there is no layer.
    pub fn new(layers: Vec<Arc<dyn Layer>>, session: &Arc<Session>) -> Result<Self> {
        let depth = u32::try_from(layers.len()).unwrap_or(u32::MAX);
        if depth > limits::MAX_CHAIN_DEPTH {
            return Err(Error::limit("reference.depth", "the chain of images is too long")
                .expected(format!("at most {} layers", limits::MAX_CHAIN_DEPTH)));
        }
        let len = layers.first().map_or(0, |top| top.len());
        if len > limits::MAX_DISK_LEN {
            return Err(Error::limit("disk.too-large", "the disk is too large")
                .expected(format!("at most {:#x} bytes", limits::MAX_DISK_LEN))
                .found(format!("{len:#x}")));
        }
        let pool = Pool::of(session);
        let tier = |layer: Arc<dyn Layer>| Tier { owners: layer.files().iter().map(|_| pool.owner()).collect(), layer };
        let layers = layers.into_iter().map(tier).collect();
        Ok(Self { layers, len, session: Arc::clone(session), pool })
    }

    /// The layers, the top first.
    pub fn layers(&self) -> impl Iterator<Item = &Arc<dyn Layer>> {
        self.layers.iter().map(|tier| &tier.layer)
    }

    /// Where the bytes at `offset` live, for a run of 1 to `max` bytes.
    fn locate(&self, offset: u64, max: u64) -> Result<Located<'_>> {
        let mut len = max;
        for (depth, tier) in self.layers.iter().enumerate() {
            let inside = tier.layer.len().saturating_sub(offset);
            if inside == 0 {
                break;
            }
            let run = tier.layer.map(offset, len.min(inside))?;
            if run.len == 0 || run.len > len.min(inside) {
                return Err(broken(tier, offset));
            }
            len = run.len;
            let place = match run.place {
                Place::Parent => continue,
                Place::Zero => Found::Zero,
                Place::Data { file, offset: at } => {
                    let file = tier.layer.files().get(file).ok_or_else(|| broken(tier, offset))?;
                    Found::Data { file, offset: at }
                }
                Place::Encoded(unit) => {
                    check_unit(tier, &unit, offset, len)?;
                    Found::Encoded { tier, unit }
                }
            };
            return Ok(Located { len, depth: u32::try_from(depth).unwrap_or(u32::MAX), place });
        }
        Ok(Located { len, depth: 0, place: Found::Hole })
    }

    /// Fills `out` with the bytes of `unit` from `within` on: straight into it when the whole unit is wanted, else through the
    /// pool, since the rest is likely to be wanted next.
    fn decode(&self, tier: &Tier, unit: &Unit, within: usize, out: &mut [u8]) -> Result<()> {
        let owner = tier.owners.get(unit.file).copied().ok_or_else(|| broken(tier, unit.start))?;
        let key = Key { owner, index: unit.offset };
        let len = usize::try_from(unit.len).unwrap_or(usize::MAX);
        if within == 0 && out.len() == len {
            return match self.pool.peek(key) {
                Some(block) => copy(&block, 0, out).ok_or_else(|| broken(tier, unit.start)),
                None => tier.layer.decode(unit, out),
            };
        }
        let block = self.pool.get(key, Class::now(&self.session), || {
            let mut block: Block = std::iter::repeat_n(0, len).collect();
            if let Some(out) = Arc::get_mut(&mut block) {
                tier.layer.decode(unit, out)?;
            }
            Ok(block)
        })?;
        copy(&block, within, out).ok_or_else(|| broken(tier, unit.start))
    }

    /// Tells the extents of a data run: the file's own holes are holes of the image.
    fn visit_data(
        start: u64,
        located: &Located<'_>,
        file: &Arc<dyn Disk>,
        offset: u64,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        let depth = located.depth;
        let end = start.saturating_add(located.len);
        if located.len < WORTH_ASKING {
            return Ok(visit(Extent { range: start..end, kind: ExtentKind::Data, depth, place: Some(offset) }));
        }
        let mut flow = ControlFlow::Continue(());
        file.extents(offset..offset.saturating_add(located.len), &mut |below| {
            let shift = |at: u64| start.saturating_add(at.saturating_sub(offset));
            let range = shift(below.range.start)..shift(below.range.end);
            flow = visit(Extent { range, kind: below.kind, depth, place: below.place });
            flow
        })?;
        Ok(flow)
    }
}

impl Disk for Image {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.layers.first().map_or(SectorSize::B512, |top| top.layer.sector_size())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let located = self.locate(at, u64::try_from(rest.len()).unwrap_or(u64::MAX))?;
            let len = usize::try_from(located.len).unwrap_or(usize::MAX);
            let (part, after) = std::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            match located.place {
                Found::Data { file, offset } => file.read_at(part, offset)?,
                Found::Encoded { tier, unit } => {
                    let within = usize::try_from(at.saturating_sub(unit.start)).unwrap_or(usize::MAX);
                    self.decode(tier, &unit, within, part)?;
                }
                Found::Zero | Found::Hole => part.fill(0),
            }
            rest = after;
            at = at.saturating_add(located.len);
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut joined = Joined::new(visit);
        let mut at = range.start;
        while at < range.end {
            let located = self.locate(at, range.end.saturating_sub(at))?;
            let end = at.saturating_add(located.len);
            let depth = located.depth;
            let flow = match &located.place {
                Found::Data { file, offset } => {
                    Self::visit_data(at, &located, file, *offset, &mut |extent| joined.add(extent, None))?
                }
                Found::Encoded { unit, .. } => {
                    let stored = unit.offset..unit.offset.saturating_add(u64::from(unit.stored));
                    let extent = Extent { range: at..end, kind: ExtentKind::Data, depth, place: Some(stored.start) };
                    joined.add(extent, Some(stored))
                }
                Found::Zero => joined.add(Extent { range: at..end, kind: ExtentKind::Zero, depth, place: None }, None),
                Found::Hole => joined.add(Extent { range: at..end, kind: ExtentKind::Hole, depth, place: None }, None),
            };
            if flow.is_break() {
                return Ok(());
            }
            at = end;
        }
        joined.finish();
        Ok(())
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let located = self.locate(range.start, range.end.saturating_sub(range.start))?;
        match located.place {
            Found::Data { file, offset } => file.host(offset..offset.saturating_add(located.len)),
            Found::Encoded { .. } | Found::Zero | Found::Hole => Ok(None),
        }
    }

    fn prefetch(&self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let Ok(located) = self.locate(at, range.end.saturating_sub(at)) else { return };
            match located.place {
                Found::Data { file, offset } => file.prefetch(offset..offset.saturating_add(located.len)),
                Found::Encoded { tier, unit } => {
                    if let Some(file) = tier.layer.files().get(unit.file) {
                        file.prefetch(unit.offset..unit.offset.saturating_add(u64::from(unit.stored)));
                    }
                }
                Found::Zero | Found::Hole => {}
            }
            at = at.saturating_add(located.len);
        }
    }

    fn hints(&self) -> Hints {
        let files = self.layers.iter().flat_map(|tier| tier.layer.files());
        let latency = files.map(|file| file.hints().latency).max().unwrap_or(Latency::Memory);
        let unit = self.layers.first().map_or(0, |top| top.layer.unit_size());
        let preferred = u32::try_from(unit).unwrap_or(u32::MAX).max(Hints::default().preferred);
        Hints { preferred, latency }
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let files = Fingerprint::of_disks(self.layers.iter().flat_map(|tier| tier.layer.files()))?;
        // The same files hold another disk when another snapshot or another rule for the size is asked for.
        let facts: String = self.layers().flat_map(|layer| layer.facts()).map(|fact| format!("{fact:?}")).collect();
        Ok(Fingerprint::of(&[&files.0, &self.len.to_le_bytes(), facts.as_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        let names: Vec<&str> = self.layers().map(|layer| layer.format()).collect();
        ("image", names.join(" over "))
    }

    fn name(&self) -> String {
        let file = self.layers().next().and_then(|top| top.files().first());
        file.map_or_else(|| self.describe().1, |file| file.name())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        self.layers.iter().flat_map(|tier| tier.layer.files()).map(Arc::clone).collect()
    }
}

/// Joins neighbouring extents of one kind whose bytes follow each other in the source.
struct Joined<'a, 'b> {
    visit: &'a mut Visit<'b>,
    pending: Option<Extent>,
    /// Stored bytes of the last encoded unit, which says where the next one should begin.
    stored: Option<Range<u64>>,
}

impl<'a, 'b> Joined<'a, 'b> {
    fn new(visit: &'a mut Visit<'b>) -> Self {
        Self { visit, pending: None, stored: None }
    }

    fn add(&mut self, extent: Extent, stored: Option<Range<u64>>) -> ControlFlow<()> {
        let joins = self.pending.as_ref().is_some_and(|last| {
            let follows = match (&self.stored, &stored, last.place, extent.place) {
                (None, None, Some(at), Some(next)) => {
                    next.checked_sub(at) == extent.range.start.checked_sub(last.range.start)
                }
                (None, None, None, None) => true,
                (Some(before), Some(next), ..) => before.start < next.start && next.start <= before.end,
                _ => false,
            };
            follows && (last.kind, last.depth) == (extent.kind, extent.depth)
        });
        self.stored = stored;
        match &mut self.pending {
            Some(last) if joins => {
                last.range.end = extent.range.end;
                ControlFlow::Continue(())
            }
            pending => match pending.replace(extent) {
                Some(last) => (self.visit)(last),
                None => ControlFlow::Continue(()),
            },
        }
    }

    fn finish(self) {
        if let Some(last) = self.pending {
            let _ = (self.visit)(last);
        }
    }
}

fn copy(block: &[u8], within: usize, out: &mut [u8]) -> Option<()> {
    out.copy_from_slice(block.get(within..within.checked_add(out.len())?)?);
    Some(())
}

/// A unit must hold the run that it was given for, and decode to a bounded length.
fn check_unit(tier: &Tier, unit: &Unit, offset: u64, len: u64) -> Result<()> {
    let holds = offset
        .checked_sub(unit.start)
        .and_then(|within| within.checked_add(len))
        .is_some_and(|end| end <= u64::from(unit.len));
    let bounded = usize::try_from(unit.len).is_ok_and(|len| len <= limits::MAX_UNIT);
    if holds && bounded { Ok(()) } else { Err(broken(tier, offset)) }
}

/// A driver broke its contract.
#[cold]
fn broken(tier: &Tier, offset: u64) -> Error {
    Error::failed("format.unit", format!("the {} driver gave an impossible answer", tier.layer.format())).offset(offset)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory, Zero, collect_extents, read_vec};
    use crate::format::Run;

    /// A layer of units of 8 bytes, each of one kind; data and stored units hold their layer's byte.
    #[derive(Debug)]
    struct Toy {
        units: &'static [u8],
        byte: u8,
        files: Vec<Arc<dyn Disk>>,
    }

    impl Toy {
        fn layer(units: &'static str, byte: u8) -> Arc<dyn Layer> {
            let file: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![byte; 1024]));
            Arc::new(Self { units: units.as_bytes(), byte, files: vec![file] })
        }
    }

    impl Layer for Toy {
        fn format(&self) -> &'static str {
            "toy"
        }
        fn len(&self) -> u64 {
            self.units.len() as u64 * 8
        }
        fn unit_size(&self) -> u64 {
            8
        }
        fn map(&self, offset: u64, max: u64) -> Result<Run> {
            let index = offset / 8;
            let place = match self.units[index as usize] {
                b'd' => Place::Data { file: 0, offset: 100 + offset },
                b'e' => Place::Encoded(Unit { start: index * 8, len: 8, file: 0, offset: 500 + index * 4, stored: 4 }),
                b'z' => Place::Zero,
                _ => Place::Parent,
            };
            Ok(Run { len: max.min(8 - offset % 8), place })
        }
        fn decode(&self, _unit: &Unit, out: &mut [u8]) -> Result<()> {
            out.fill(self.byte + 100);
            Ok(())
        }
        fn files(&self) -> &[Arc<dyn Disk>] {
            &self.files
        }
        fn facts(&self) -> Vec<(&'static str, String)> {
            Vec::new()
        }
    }

    fn image(layers: Vec<Arc<dyn Layer>>) -> Arc<Checked<Image>> {
        Checked::wrap(Image::new(layers, &Session::with_defaults()).unwrap())
    }

    #[test]
    fn bytes_come_from_the_topmost_layer_that_has_them() {
        let image = image(vec![Toy::layer("de-z---", 1), Toy::layer("dddde-", 2)]);
        let whole = read_vec(&*image, 0, 56).unwrap();
        let expected: Vec<u8> = [1, 101, 2, 0, 102, 0, 0].iter().flat_map(|byte| [*byte; 8]).collect();
        assert_eq!(whole, expected);
        for offset in 0..56 {
            for len in 0..56 - offset {
                assert_eq!(read_vec(&*image, offset as u64, len).unwrap(), expected[offset..offset + len]);
            }
        }
    }

    #[test]
    fn extents_join_what_follows_in_the_source() {
        let image = image(vec![Toy::layer("ddee-z-z", 1), Toy::layer("----d", 2)]);
        let extent = |range, kind, depth, place| Extent { range, kind, depth, place };
        assert_eq!(
            collect_extents(&*image, 0..64).unwrap(),
            [
                extent(0..16, ExtentKind::Data, 0, Some(100)),
                extent(16..32, ExtentKind::Data, 0, Some(508)),
                extent(32..40, ExtentKind::Data, 1, Some(132)),
                extent(40..48, ExtentKind::Zero, 0, None),
                extent(48..56, ExtentKind::Hole, 0, None),
                extent(56..64, ExtentKind::Zero, 0, None),
            ]
        );
        assert_eq!(collect_extents(&*image, 4..20).unwrap().len(), 2);
        let mut seen = 0;
        image
            .extents(0..64, &mut |_| {
                seen += 1;
                ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn holes_of_the_file_are_holes_of_the_image() {
        #[derive(Debug)]
        struct Flat(Vec<Arc<dyn Disk>>);
        impl Layer for Flat {
            fn format(&self) -> &'static str {
                "flat"
            }
            fn len(&self) -> u64 {
                4 << 20
            }
            fn unit_size(&self) -> u64 {
                512
            }
            fn map(&self, offset: u64, max: u64) -> Result<Run> {
                Ok(Run { len: max, place: Place::Data { file: 0, offset } })
            }
            fn files(&self) -> &[Arc<dyn Disk>] {
                &self.0
            }
            fn facts(&self) -> Vec<(&'static str, String)> {
                Vec::new()
            }
        }
        let zero: Arc<dyn Disk> = Checked::wrap(Zero { len: 4 << 20 });
        let image = image(vec![Arc::new(Flat(vec![zero]))]);
        assert!(collect_extents(&*image, 0..4 << 20).unwrap().iter().all(|extent| extent.kind.is_zero()));
    }

    #[test]
    fn the_chain_is_bounded() {
        let of = |count| (0..count).map(|_| Toy::layer("d", 1)).collect();
        let session = Session::with_defaults();
        assert!(Image::new(of(limits::MAX_CHAIN_DEPTH), &session).is_ok());
        assert_eq!(Image::new(of(limits::MAX_CHAIN_DEPTH + 1), &session).unwrap_err().code(), "reference.depth");
    }
}
