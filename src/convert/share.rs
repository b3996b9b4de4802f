//! Bytes that the file system shares between a file of the source and the output, so that nobody moves them.
//!
//! Where the source's bytes lie as they are in a file of the output's file system, at offsets that suit its blocks, and the format
//! takes plain bytes, a chunk is shared instead of written. When the output is verified, chunks are read and digested as ever,
//! and zeros in them are left out; when it is not, chunks that can be shared as a whole are not even read, so zeros that the
//! source's map does not know stay, which costs no room, and there is no digest of the disk.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::output::Output;
use super::plan::{BLOCK, Task};
use super::sink::Piece;
use crate::disk::Disk;
use crate::error::Result;

/// Most files of a source that are asked whether they can be shared.
const MAX_FILES: usize = 64;

/// The files of a source that an output can share bytes with.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Each with the unit of offsets and lengths.
    files: Vec<(Arc<File>, u64)>,
    /// Whether what is shared is not read.
    pub(super) unread: bool,
}

/// Bytes of a chunk and where they lie in a file that can be shared: whole units.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    range: Range<usize>,
    file: Arc<File>,
    offset: u64,
    unit: u64,
}

/// Part of a piece.
pub(super) struct Part<'a> {
    /// Bytes of the chunk.
    pub(super) range: Range<usize>,
    /// Where they go in the output.
    pub(super) host: u64,
    /// What they can share: the file, and the offset there.
    pub(super) from: Option<(&'a File, u64)>,
}

impl Sharing {
    /// What `output` can share with the files below `source`.
    pub(super) fn find(source: &dyn Disk, output: &dyn Output, unread: bool) -> Self {
        let mut files = Vec::new();
        find(source, output, &mut files);
        let files: Vec<_> = files.into_iter().filter_map(|(file, unit)| Some((file, unit?))).collect();
        Self { unread: unread && !files.is_empty(), files }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What of a task's blocks can be shared, in a chunk of `len` bytes that starts at `start`; and whether that is all of them.
    pub(super) fn segments(
        &self,
        disk: &dyn Disk,
        task: &Task,
        start: u64,
        len: usize,
    ) -> Result<(Vec<Segment>, bool)> {
        let (mut segments, mut all): (Vec<Segment>, bool) = (Vec::new(), true);
        if self.is_empty() {
            return Ok((segments, false));
        }
        for run in task.blocks.ranges(len) {
            let mut at = run.start;
            while at < run.end {
                let Some(host) = disk.host(start + at as u64..start + run.end as u64)? else {
                    // What lies behind may be somewhere else; to find out where that begins is not worth it.
                    all = false;
                    break;
                };
                let host_len = usize::try_from(host.len).unwrap_or(usize::MAX).min(run.end - at);
                let unit = self.unit_of(&host.file);
                let whole = unit.and_then(|unit| whole_units(at as u64, host.offset, host_len as u64, unit));
                match (unit, whole.and_then(|whole| usize::try_from(whole).ok())) {
                    (Some(unit), Some(whole)) => {
                        all &= whole == host_len;
                        add(
                            &mut segments,
                            Segment { range: at..at + whole, file: host.file, offset: host.offset, unit },
                        );
                    }
                    _ => all = false,
                }
                at += host_len;
            }
        }
        Ok((segments, all))
    }

    /// Whether a task's blocks are shared unread, all of them, so that they take no room.
    pub(super) fn takes_whole(&self, disk: &dyn Disk, task: &Task) -> Result<bool> {
        if !self.unread {
            return Ok(false);
        }
        let range = task.range(disk.len());
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        Ok(self.segments(disk, task, range.start, len)?.1)
    }

    fn unit_of(&self, file: &Arc<File>) -> Option<u64> {
        self.files.iter().find(|(known, _)| Arc::ptr_eq(known, file)).map(|(_, unit)| *unit)
    }
}

/// Asks every file below `disk`, once.
fn find(disk: &dyn Disk, output: &dyn Output, files: &mut Vec<(Arc<File>, Option<u64>)>) {
    let below = disk.below();
    if below.is_empty()
        && let Ok(Some(host)) = disk.host(0..disk.len().min(1))
        && files.len() < MAX_FILES
        && !files.iter().any(|(known, _)| Arc::ptr_eq(known, &host.file))
    {
        let unit = output.shares(&host.file).filter(|unit| unit.is_power_of_two() && *unit <= BLOCK);
        files.push((host.file, unit));
    }
    below.iter().for_each(|below| find(&**below, output, files));
}

/// How many of `len` bytes are whole units, where both offsets are; none when nothing is.
fn whole_units(at: u64, offset: u64, len: u64, unit: u64) -> Option<u64> {
    let whole = len - len % unit;
    (at.is_multiple_of(unit) && offset.is_multiple_of(unit) && whole > 0).then_some(whole)
}

/// Adds a segment, to the last one if it goes on where that ends.
fn add(segments: &mut Vec<Segment>, next: Segment) {
    match segments.last_mut() {
        Some(last)
            if last.range.end == next.range.start
                && Arc::ptr_eq(&last.file, &next.file)
                && last.offset + last.range.len() as u64 == next.offset =>
        {
            last.range.end = next.range.end;
        }
        _ => segments.push(next),
    }
}

/// Cuts a piece that has its place into what can be shared and what must be written. To share less than a block is not worth it.
pub(super) fn parts<'a>(piece: &Piece, segments: &'a [Segment]) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    let end = piece.start + piece.len;
    let mut at = piece.start;
    let mut push = |range: Range<usize>, from| {
        if !range.is_empty() {
            let host = piece.host + (range.start - piece.start) as u64;
            parts.push(Part { range, host, from });
        }
    };
    for segment in segments.iter().filter(|segment| segment.range.start < end && segment.range.end > piece.start) {
        let unit = usize::try_from(segment.unit).unwrap_or(usize::MAX);
        let start = segment.range.start.max(at).next_multiple_of(unit);
        let stop = segment.range.end.min(end) / unit * unit;
        let host = piece.host + start.saturating_sub(piece.start) as u64;
        if stop < start + BLOCK as usize || !host.is_multiple_of(segment.unit) {
            continue;
        }
        push(at..start, None);
        push(start..stop, Some((&*segment.file, segment.offset + (start - segment.range.start) as u64)));
        at = stop;
    }
    push(at..end, None);
    parts
}

#[cfg(test)]
mod tests {
    use super::super::sink::Form;
    use super::*;

    const KIB: usize = 1024;

    fn segment(file: &Arc<File>, range: Range<usize>, offset: u64) -> Segment {
        Segment { range, file: Arc::clone(file), offset, unit: 4096 }
    }

    fn cut(piece: (usize, usize, u64), segments: &[Segment]) -> Vec<(Range<usize>, u64, Option<u64>)> {
        let piece = Piece { start: piece.0, len: piece.1, form: Form::Plain, host: piece.2 };
        let parts = parts(&piece, segments);
        parts.into_iter().map(|part| (part.range, part.host, part.from.map(|(_, offset)| offset))).collect()
    }

    #[test]
    fn pieces_are_cut_where_segments_begin_and_end() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let segments = [segment(&file, 64 * KIB..256 * KIB, 1 << 30), segment(&file, 256 * KIB..320 * KIB, 8192)];
        let found = cut((0, 512 * KIB, 1 << 20), &segments);
        let host = |kib: usize| (1 << 20) + (kib * KIB) as u64;
        assert_eq!(
            found,
            [
                (0..64 * KIB, host(0), None),
                (64 * KIB..256 * KIB, host(64), Some(1 << 30)),
                (256 * KIB..320 * KIB, host(256), Some(8192)),
                (320 * KIB..512 * KIB, host(320), None),
            ]
        );
        let inside = cut((100 * KIB, 100 * KIB, 0), &segments);
        assert_eq!(inside, [(100 * KIB..200 * KIB, 0, Some((1 << 30) + 36 * 1024))]);
    }

    #[test]
    fn what_is_small_or_does_not_fit_is_written() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let segments = [segment(&file, 0..256 * KIB, 0)];
        assert_eq!(cut((8 * KIB, 32 * KIB, 0), &segments), [(8 * KIB..40 * KIB, 0, None)]);
        assert_eq!(cut((0, 256 * KIB, 512), &segments), [(0..256 * KIB, 512, None)]);
        assert_eq!(
            cut((0, 70 * KIB + 100, 0), &segments),
            [(0..68 * KIB, 0, Some(0)), (68 * KIB..70 * KIB + 100, 68 * 1024, None)].map(|(range, host, from)| (
                range.start.min(70 * KIB)..range.end,
                host,
                from
            ))
        );
    }

    #[test]
    fn neighbours_are_one_segment() {
        let files = [(); 2].map(|()| Arc::new(tempfile::tempfile().unwrap()));
        let mut segments = Vec::new();
        add(&mut segments, segment(&files[0], 0..4096, 8192));
        add(&mut segments, segment(&files[0], 4096..8192, 12_288));
        add(&mut segments, segment(&files[0], 8192..12_288, 0));
        add(&mut segments, segment(&files[1], 12_288..16_384, 4096));
        let found: Vec<_> = segments.iter().map(|segment| segment.range.clone()).collect();
        assert_eq!(found, [0..8192, 8192..12_288, 12_288..16_384]);
    }

    #[test]
    fn only_whole_units_count() {
        assert_eq!(whole_units(4096, 8192, 5000, 4096), Some(4096));
        assert_eq!(whole_units(0, 0, 4095, 4096), None);
        assert_eq!(whole_units(0, 512, 8192, 4096), None);
        assert_eq!(whole_units(512, 0, 8192, 4096), None);
    }
}
