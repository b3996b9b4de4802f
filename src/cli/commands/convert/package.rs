//! All disks of a machine into one package.

use std::path::Path;
use std::sync::Arc;

use crate::chain::{Opened, OpenedDisk};
use crate::container::Ovf;
use crate::convert::{OvaDisk, OvaOptions, side_by_side};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::pipeline::naming;

/// Longest stem of a member: tar keeps names of 100 bytes.
const LONGEST: usize = 80;

/// Describes in `ova`, which is to be written to `path`, the machine that `sources` hold and its `disks`. Gives these as one, of
/// `flat`, where a single one may get another `size`.
pub(super) fn fill(
    ova: &mut OvaOptions,
    path: &Path,
    sources: &[Opened],
    disks: &[OpenedDisk],
    flat: Vec<Arc<dyn Disk>>,
    size: Option<u64>,
) -> Result<Arc<dyn Disk>> {
    if size.is_some() && disks.len() > 1 {
        return Err(Error::new(Kind::Usage, "convert.options", "--size is for one disk, and the source has several")
            .hint("choose one with --disk N, or convert them one by one"));
    }
    let by_file = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    // What several sources say of their machines need not fit together.
    if let [Opened { machine: Some(machine), .. }] = sources {
        *ova.machine = Ovf { disks: Vec::new(), notes: Vec::new(), ..machine.clone() };
    }
    if ova.machine.name.is_empty() {
        ova.machine.name = by_file();
    }
    let stem = naming::file_stem(&ova.machine.name);
    ova.stem = stem.chars().map(|c| if c.is_ascii() { c } else { '-' }).take(LONGEST).collect();
    let single = sources.len() == 1;
    let described = |(disk, flat): (&OpenedDisk, &Arc<dyn Disk>)| OvaDisk {
        len: size.unwrap_or_else(|| flat.len().next_multiple_of(512)),
        attached: disk.described.as_ref().and_then(|described| described.attached).filter(|_| single),
    };
    ova.disks = disks.iter().zip(&flat).map(described).collect();
    Ok(side_by_side(&by_file(), flat))
}
