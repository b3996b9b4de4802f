//! The output's format and its options, from what was typed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::Destination;
use crate::chain::OpenOptions;
use crate::cli::args::{ConvertArgs, Prealloc};
use crate::convert::{BackingName, Compression, Format, Preallocation, Qcow2Options, RawOptions, RawPreallocation};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::pipeline::source;
use crate::session::Session;

/// The format to write, and the disk of the backing file if there is to be one.
pub(super) fn wanted(
    args: &ConvertArgs,
    destination: &Destination<'_>,
    session: &Arc<Session>,
) -> Result<(Format, Option<Arc<dyn Disk>>)> {
    let mut format = match (&args.to, destination) {
        (Some(name), _) => Format::by_name(name)?,
        (None, Destination::File(path)) => Format::by_suffix(path).unwrap_or_default(),
        (None, Destination::Object(address)) => Format::by_suffix(Path::new(&address.file_name())).unwrap_or_default(),
        // The server has a format of its own, or none.
        (None, Destination::Export(_)) => Format::Raw(RawOptions::default()),
        (None, Destination::Directory(_) | Destination::Stdout) => Format::default(),
    };
    if let Some(name) = &args.subformat {
        format = format.subformat(name)?;
    }
    let mut base = None;
    match &mut format {
        Format::Qcow2(options) => {
            qcow2(args, options)?;
            if let (Some(backing), Destination::File(target)) = (&args.backing, destination) {
                let (name, disk) = backing_file(backing, target, session)?;
                (options.backing, base) = (Some(name), Some(disk));
            }
        }
        other => {
            let flags = [
                ("--cluster-size", args.cluster_size.is_some()),
                ("--compress", args.compress.is_some() && !matches!(other, Format::Ova(_) | Format::Vmdk(_))),
                ("--extended-l2", args.extended_l2),
                ("--backing", args.backing.is_some()),
            ];
            if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
                return Err(not_for(flag, other.name()));
            }
            match other {
                Format::Raw(options) => raw(args, options)?,
                Format::Ova(options) => options.level = grains(args, "ova")?.unwrap_or(options.level),
                Format::Vmdk(options) => options.level = grains(args, "vmdk")?.unwrap_or(options.level),
                other if args.preallocation != Prealloc::Off => return Err(not_for("--preallocation", other.name())),
                _ => {}
            }
        }
    }
    Ok((format, base))
}

fn not_for(flag: &str, format: &str) -> Error {
    Error::new(Kind::Usage, "convert.options", format!("{flag} is not for {format}"))
}

fn qcow2(args: &ConvertArgs, options: &mut Qcow2Options) -> Result<()> {
    if let Some(size) = args.cluster_size {
        options.cluster_size = size.0;
    }
    options.compression = args.compress.as_deref().map(Compression::parse).transpose()?;
    options.extended_l2 = args.extended_l2;
    options.preallocation = match args.preallocation {
        Prealloc::Off => Preallocation::Off,
        Prealloc::Metadata => Preallocation::Metadata,
        Prealloc::Falloc => Preallocation::Falloc,
        Prealloc::Full => Preallocation::Full,
    };
    Ok(())
}

/// How hard to compress grains, if that was said.
fn grains(args: &ConvertArgs, format: &str) -> Result<Option<u8>> {
    if args.preallocation != Prealloc::Off {
        return Err(not_for("--preallocation", format));
    }
    match args.compress.as_deref().map(Compression::parse).transpose()? {
        Some(Compression::Zlib(level)) => Ok(Some(level)),
        Some(Compression::Zstd(_)) => Err(not_for("--compress zstd", &format!("{format}, which knows zlib only"))),
        None => Ok(None),
    }
}

fn raw(args: &ConvertArgs, options: &mut RawOptions) -> Result<()> {
    options.preallocation = match args.preallocation {
        Prealloc::Off => RawPreallocation::Off,
        Prealloc::Metadata => return Err(not_for("--preallocation metadata", "raw")),
        Prealloc::Falloc => RawPreallocation::Falloc,
        Prealloc::Full => RawPreallocation::Full,
    };
    Ok(())
}

/// Opens `FILE[:FORMAT]`, and says how an image at `target` names it.
fn backing_file(text: &str, target: &Path, session: &Arc<Session>) -> Result<(BackingName, Arc<dyn Disk>)> {
    let (file, format) = match text.rsplit_once(':') {
        Some((file, format)) if !Path::new(text).exists() => (file, Some(format)),
        _ => (text, None),
    };
    let options = OpenOptions { format: format.map(str::to_owned), ..OpenOptions::default() };
    let opened = source::open_disk(file, None, &options, session)?;
    let top = opened.disk.image.inner().layers().next().map(|layer| layer.format());
    let format = top.unwrap_or("raw").to_owned();
    Ok((BackingName { file: name_beside(Path::new(file), target)?, format }, opened.disk.disk()))
}

/// The name of `file` for an image at `target`: relative if it lies in the image's own directory or below, else absolute.
fn name_beside(file: &Path, target: &Path) -> Result<String> {
    let failed =
        |error: std::io::Error, path: &Path| Error::unreadable("cannot find the backing file", error).path(path);
    let file = file.canonicalize().map_err(|error| failed(error, file))?;
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir: PathBuf = dir.canonicalize().map_err(|error| failed(error, dir))?;
    let name = file.strip_prefix(&dir).unwrap_or(&file);
    name.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(Kind::Usage, "convert.backing", "the backing file's name is not UTF-8, so an image cannot name it")
            .path(name)
    })
}
