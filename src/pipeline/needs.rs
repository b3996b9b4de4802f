//! What a migration will take: bytes to read, space for the result, time, and what stands in its way.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::migrate::Planned;
use crate::disk::Disk;
use crate::error::Result;
use crate::fix::Plan;

/// What a migration will take. Bytes, unless a name says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Needs {
    /// The machine's disks in order.
    pub disks: Vec<DiskNeeds>,
    /// Bytes of all disks to read and write: data that is not free in its file system.
    pub data_bytes: u64,
    /// Bytes of guest files that the fixes write.
    pub fixes: u64,
    /// Free space that is surely enough for the result as qcow2, uncompressed.
    pub free_space: u64,
    /// How long reading will take; `None` without data to measure with.
    pub time: Option<Estimate>,
    /// Whether the result will boot as far as can be told; what stands in its way is in [`Plan::left`].
    pub will_boot: bool,
}

/// What one disk takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskNeeds {
    /// Its size for the guest.
    pub virtual_size: u64,
    /// What is read of it.
    pub data_bytes: u64,
    /// Space for it as qcow2: the clusters that its data touches, the tables, headers.
    pub free_space: u64,
}

/// How long reading the data takes, and how that is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds at the measured rate, for reading alone.
    pub read_seconds: f64,
    /// The rate.
    pub bytes_per_second: u64,
    /// What the rate was measured with.
    pub sampled_bytes: u64,
}

/// Bytes of a sample.
const SAMPLE: u64 = 2 << 20;
/// Samples that are taken, spread over the data, while [`LONGEST`] is not over.
const SAMPLES: u64 = 12;
/// When to stop measuring.
const LONGEST: Duration = Duration::from_millis(700);

impl Needs {
    /// What `planned` will take, as it stands. With `keep_free_space` free space is counted too.
    ///
    /// Takes a few samples of the source to measure its rate.
    ///
    /// # Errors
    /// Those of reading the source, and of leaving its file systems clean in the overlays.
    pub fn of(planned: &Planned, keep_free_space: bool) -> Result<Self> {
        let disks = planned.guest.finish(!keep_free_space)?;
        let each: Vec<DiskNeeds> = disks.iter().map(|disk| DiskNeeds::of(&**disk)).collect::<Result<_>>()?;
        let data = each.iter().fold(0_u64, |sum, disk| sum.saturating_add(disk.data_bytes));
        let fixes = written(&planned.plan);
        let largest = disks.iter().zip(&each).max_by_key(|(_, need)| need.data_bytes);
        let time = match largest {
            Some((disk, need)) if need.data_bytes > 0 => Some(Estimate::measure(&**disk, data)?),
            _ => None,
        };
        Ok(Self {
            free_space: each.iter().map(|disk| disk.free_space).fold(fixes, u64::saturating_add),
            disks: each,
            data_bytes: data,
            fixes,
            time,
            will_boot: !planned.plan.stops_boot(),
        })
    }
}

/// Bytes that the fixes write.
fn written(plan: &Plan) -> u64 {
    let bytes = plan.actions.iter().map(|action| action.change.bytes());
    bytes.fold(0, u64::saturating_add)
}

/// Bytes of a cluster of the result.
const CLUSTER: u64 = 64 << 10;

impl DiskNeeds {
    fn of(disk: &dyn Disk) -> Result<Self> {
        let (mut data, mut clusters, mut counted) = (0_u64, 0_u64, 0_u64);
        disk.extents(0..disk.len(), &mut |extent| {
            if !extent.kind.is_zero() {
                let end = extent.range.end.div_ceil(CLUSTER);
                clusters = clusters.saturating_add(end.saturating_sub(counted.max(extent.range.start / CLUSTER)));
                counted = end;
                data = data.saturating_add(extent.range.end.saturating_sub(extent.range.start));
            }
            ControlFlow::Continue(())
        })?;
        // Eight bytes of table and two of count for each cluster of the disk.
        let tables = disk.len().div_ceil(CLUSTER).saturating_mul(8 + 2);
        let free_space = clusters.saturating_add(16).saturating_mul(CLUSTER).saturating_add(tables);
        Ok(Self { virtual_size: disk.len(), data_bytes: data, free_space })
    }
}

impl Estimate {
    /// Reads a few samples of a disk's data, to tell how long `data` bytes take.
    fn measure(disk: &dyn Disk, data: u64) -> Result<Self> {
        let places = places(disk)?;
        let (start, mut sampled) = (Instant::now(), 0_u64);
        let mut buf = vec![0; usize::try_from(SAMPLE).unwrap_or(0)];
        for place in places {
            let len = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(0).min(buf.len());
            let Some(buf) = buf.get_mut(..len) else { break };
            disk.read_at(buf, place.start)?;
            sampled = sampled.saturating_add(u64::try_from(len).unwrap_or(0));
            if start.elapsed() >= LONGEST {
                break;
            }
        }
        let rate = sampled as f64 / start.elapsed().as_secs_f64().max(1e-6);
        Ok(Self { read_seconds: data as f64 / rate.max(1.0), bytes_per_second: rate as u64, sampled_bytes: sampled })
    }
}

/// Where to take samples: pieces of data about evenly spread over the disk.
fn places(disk: &dyn Disk) -> Result<Vec<Range<u64>>> {
    let apart = (disk.len() / SAMPLES).max(SAMPLE);
    let (mut places, mut next) = (Vec::new(), 0_u64);
    disk.extents(0..disk.len(), &mut |extent| {
        let mut at = extent.range.start.max(next);
        while !extent.kind.is_zero() && at < extent.range.end {
            places.push(at..extent.range.end.min(at.saturating_add(SAMPLE)));
            next = at.saturating_add(apart);
            at = next;
        }
        ControlFlow::Continue(())
    })?;
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Checked, Concat, Memory, Zero};

    #[test]
    fn samples_are_spread_over_the_disk() {
        let disk = Checked::wrap(Memory::new(vec![1; 64 << 20]));
        let places = places(&*disk).unwrap();
        assert!((6..=13).contains(&places.len()), "{places:?}");
        assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "{places:?}");
        assert!(places.iter().all(|place| place.end - place.start <= SAMPLE && place.end <= disk.len()), "{places:?}");
        assert!(places.last().unwrap().start > disk.len() / 2);
    }

    #[test]
    fn a_measurement_scales_to_the_whole() {
        let disk = Checked::wrap(Memory::new(vec![1; 8 << 20]));
        let estimate = Estimate::measure(&*disk, 1 << 40).unwrap();
        assert!((SAMPLE..=8 << 20).contains(&estimate.sampled_bytes));
        let seconds = (1_u64 << 40) as f64 / estimate.bytes_per_second as f64;
        assert!((estimate.read_seconds / seconds - 1.0).abs() < 0.01, "{estimate:?}");
    }

    #[test]
    fn a_piece_of_data_takes_all_clusters_that_it_touches() {
        // Across two clusters; two in one cluster; a whole one.
        let holes_and_data = [(61_440, 8192), (69_632, 4096), (8192, 4096), (892_928, 65_536), (1 << 20, 0)];
        let piece = |(hole, data): (u64, usize)| -> [Arc<dyn Disk>; 2] {
            [Checked::wrap(Zero { len: hole }), Checked::wrap(Memory::new(vec![1; data]))]
        };
        let disk = Checked::wrap(Concat::new("pieces", holes_and_data.into_iter().flat_map(piece).collect()));
        let needs = DiskNeeds::of(&*disk).unwrap();
        assert_eq!(needs.data_bytes, 8192 + 4096 + 4096 + 65_536);
        let tables = disk.len() / CLUSTER * 10;
        assert_eq!(needs.free_space, (2 + 1 + 1 + 16) * CLUSTER + tables);
    }
}
