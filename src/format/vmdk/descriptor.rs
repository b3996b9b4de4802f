//! The text descriptor: keys and values, the list of extents, the disk database (VMware Virtual Disk Format 5.0, "The
//! Descriptor").

use crate::error::{Error, Result, escape_bytes};
use crate::limits;
use crate::source::{Reference, Role};

/// The first line of every descriptor, in any case.
const FIRST_LINE: &[u8] = b"# disk descriptorfile";

/// Lines that may stand before and with it.
const PROBED_LINES: usize = 64;

/// `parentCID` of a disk without a parent.
pub(super) const NO_PARENT: u32 = u32::MAX;

/// `createType`s of disks that are a device of the host or of a storage array, in lower case.
const DEVICES: &[&[u8]] = &[
    b"fulldevice",
    b"partitioneddevice",
    b"vmfspassthroughrawdevicemap",
    b"vmfsraw",
    b"vmfsrawdevicemap",
    b"vmfsrdm",
    b"vmfsrdmp",
];

/// A descriptor, parsed. Every line was understood: an extent that was skipped would move all that follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// `CID`: changes whenever the content does.
    pub(super) cid: Option<u32>,
    /// `parentCID`: [`NO_PARENT`] where there is none.
    pub(super) parent_cid: Option<u32>,
    /// `parentFileNameHint`.
    pub(super) parent_hint: Option<Vec<u8>>,
    /// `createType`.
    pub(super) create_type: Option<String>,
    /// `encoding`, that of names in the descriptor.
    pub(super) encoding: Option<String>,
    /// `ddb.adapterType`.
    pub(super) adapter: Option<String>,
    /// `ddb.virtualHWVersion`.
    pub(super) hardware: Option<String>,
    /// The extents in the order of the disk.
    pub(super) extents: Vec<ExtentLine>,
}

/// `ACCESS SECTORS TYPE ["FILE" [OFFSET]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtentLine {
    /// Length in sectors, not 0.
    pub(super) sectors: u64,
    /// Whether a guest can read it; `NOACCESS` says that it cannot.
    pub(super) readable: bool,
    /// Where the bytes are.
    pub(super) storage: Storage,
}

/// Where an extent's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// `FLAT` or `VMFS`: as they are, `offset` sectors into the file.
    Flat {
        /// The file.
        file: Reference,
        /// In sectors.
        offset: u64,
    },
    /// `SPARSE`, `VMFSSPARSE` or `SESPARSE`: in a file of grains, whose own header tells which kind it is.
    Sparse {
        /// The file.
        file: Reference,
    },
    /// `ZERO`: nowhere, zeros.
    Zero,
}

/// Whether `head`, the first bytes of a file, begins like a descriptor.
///
/// The line may follow blank lines and other comments.
pub(super) fn probe(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let lines = text.split(|b| matches!(b, b'\n' | b'\r')).map(<[u8]>::trim_ascii_start).take(PROBED_LINES);
    let mut comments = lines.filter(|line| !line.is_empty()).take_while(|line| line.starts_with(b"#"));
    comments.any(|line| line.get(..FIRST_LINE.len()).is_some_and(|start| start.eq_ignore_ascii_case(FIRST_LINE)))
}

impl Descriptor {
    /// Parses a descriptor, which ends at the first NUL. Names keep the bytes that they have, whatever their encoding.
    ///
    /// # Errors
    /// `vmdk.descriptor` for what is not a descriptor, contradicts itself or is too large; `vmdk.extent` for an impossible extent;
    /// `vmdk.device` for a disk that is a device.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MAX_VMDK_DESCRIPTOR {
            return Err(Error::limit("vmdk.descriptor", "the descriptor is too large")
                .expected(format!("at most {} bytes", limits::MAX_VMDK_DESCRIPTOR))
                .found(bytes.len()));
        }
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        if !probe(text) {
            return Err(Error::corrupt("vmdk.descriptor", "this is not a disk descriptor")
                .expected("# Disk DescriptorFile")
                .found(escape_bytes(text.get(..text.len().min(32)).unwrap_or_default())));
        }
        let mut descriptor = Self::default();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (number, line) in text.split(|b| matches!(b, b'\n' | b'\r')).enumerate() {
            descriptor
                .line(line.trim_ascii())
                .map_err(|error| error.at(format!("descriptor line {}", number.saturating_add(1))))?;
        }
        descriptor.refuse_devices()?;
        Ok(descriptor)
    }

    /// A raw device mapping has no bytes in any file.
    fn refuse_devices(&self) -> Result<()> {
        let kind = self.create_type.as_deref().unwrap_or_default();
        if !DEVICES.contains(&kind.to_ascii_lowercase().as_bytes()) {
            return Ok(());
        }
        Err(device(kind))
    }

    /// Length of the disk in bytes.
    ///
    /// # Errors
    /// `disk.too-large`.
    pub(super) fn len(&self) -> Result<u64> {
        let sectors = self.extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.sectors));
        sectors
            .and_then(|sectors| sectors.checked_mul(super::header::SECTOR))
            .filter(|len| *len <= limits::MAX_DISK_LEN)
            .ok_or_else(|| Error::limit("disk.too-large", "the disk is too large"))
    }

    /// Whether the content depends on another image.
    pub(super) fn has_parent(&self) -> bool {
        self.parent_cid.is_some_and(|cid| cid != NO_PARENT) || self.parent_hint.is_some()
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(());
        }
        let (word, rest) = split_word(line);
        if let Some(access) = Access::parse(word)
            && !rest.starts_with(b"=")
        {
            if self.extents.len() >= limits::MAX_VMDK_EXTENTS {
                return Err(Error::limit("vmdk.extent", "the descriptor has too many extents")
                    .expected(format!("at most {}", limits::MAX_VMDK_EXTENTS)));
            }
            self.extents.push(extent(access, rest)?);
            return Ok(());
        }
        let Some(equals) = line.iter().position(|b| *b == b'=') else {
            return Err(
                Error::corrupt("vmdk.descriptor", "the line is neither a key nor an extent").found(escape_bytes(line))
            );
        };
        let key = line.get(..equals).unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let value = unquote(line.get(equals..).and_then(|rest| rest.get(1..)).unwrap_or_default().trim_ascii());
        self.pair(&key, value)
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"cid" => set(&mut self.cid, cid(value)?),
            b"parentcid" => set(&mut self.parent_cid, cid(value)?),
            b"parentfilenamehint" => set(&mut self.parent_hint, value.to_vec()),
            b"createtype" => set(&mut self.create_type, text(value)),
            b"encoding" => set(&mut self.encoding, text(value)),
            b"ddb.adaptertype" => set(&mut self.adapter, text(value)),
            b"ddb.virtualhwversion" => set(&mut self.hardware, text(value)),
            _ => Ok(()),
        }
    }
}

/// How a guest may use an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Its bytes can be read.
    Readable,
    /// `NOACCESS`.
    None,
}

impl Access {
    fn parse(word: &[u8]) -> Option<Self> {
        match word.to_ascii_uppercase().as_slice() {
            b"RW" | b"RDONLY" => Some(Self::Readable),
            b"NOACCESS" => Some(Self::None),
            _ => None,
        }
    }
}

fn extent(access: Access, rest: &[u8]) -> Result<ExtentLine> {
    let bad = |what: &str| Error::corrupt("vmdk.extent", what).found(escape_bytes(rest));
    let (sectors, after) = split_word(rest);
    let sectors =
        number(sectors).filter(|sectors| *sectors > 0).ok_or_else(|| bad("the extent has no length in sectors"))?;
    let (kind, after) = split_word(after);
    let kind = kind.to_ascii_uppercase();
    let (name, after) = quoted(after).ok_or_else(|| bad("the name of the extent has no closing quote"))?;
    let offset = match after {
        b"" => None,
        after => Some(number(after).ok_or_else(|| bad("the extent's offset is not a number"))?),
    };
    let file = || match name {
        Some(name) => Ok(Reference::new(name, Role::Extent)),
        None => Err(bad("the extent names no file")),
    };
    let storage = match kind.as_slice() {
        b"FLAT" => Storage::Flat { file: file()?, offset: offset.unwrap_or(0) },
        b"VMFS" if offset.is_none_or(|offset| offset == 0) => Storage::Flat { file: file()?, offset: 0 },
        b"VMFS" => return Err(bad("a VMFS extent has no offset")),
        b"SPARSE" | b"VMFSSPARSE" | b"SESPARSE" if offset.is_none_or(|offset| offset == 0) => {
            Storage::Sparse { file: file()? }
        }
        b"SPARSE" | b"VMFSSPARSE" | b"SESPARSE" => return Err(bad("a sparse extent has no offset")),
        b"ZERO" => Storage::Zero,
        b"VMFSRDM" | b"VMFSRAW" => return Err(device(&escape_bytes(&kind))),
        _ => return Err(bad("the kind of extent is not known")),
    };
    Ok(ExtentLine { sectors, readable: access == Access::Readable, storage })
}

/// The error for a disk that is a device.
fn device(kind: &str) -> Error {
    Error::unsupported("vmdk.device", "the disk is a mapping of a whole device, and its bytes are in no file")
        .found(kind)
        .hint(
            "read the device itself (a LUN or /dev/…) as a raw source, or clone the disk into a file first: vmkfstools -i DISK.vmdk COPY.vmdk",
        )
}

/// The first word and what follows it without leading blanks.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii_start();
    let end = line.iter().position(|b| b.is_ascii_whitespace() || *b == b'=').unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end).unwrap_or((line, b""));
    (word, rest.trim_ascii_start())
}

/// A quoted name if there is one, and what follows. `None` when the quote does not end.
fn quoted(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let Some(inside) = rest.strip_prefix(b"\"") else { return Some((None, rest)) };
    let end = inside.iter().position(|b| *b == b'"')?;
    let after = inside.get(end..)?.get(1..)?;
    Some((inside.get(..end), after.trim_ascii()))
}

fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn number(word: &[u8]) -> Option<u64> {
    let plain = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| plain)?.parse().ok()
}

fn cid(value: &[u8]) -> Result<u32> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .ok_or_else(|| {
            Error::corrupt("vmdk.descriptor", "a content id is not a hexadecimal number").found(escape_bytes(value))
        })
}

/// Stores a value; a second and different one is a contradiction.
fn set<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot {
        Some(before) if *before != value => {
            Err(Error::corrupt("vmdk.descriptor", "a key is given twice with different values"))
        }
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn text(value: &[u8]) -> String {
    escape_bytes(value)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    const GOOD: &str = "# Disk DescriptorFile\nversion=1\nCID=7dc6e2bc\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
        # Extent description\nRW 6291456 FLAT \"a disk; 1-flat.vmdk\" 0\nRDONLY 8 ZERO\nRW 100 VMFS \"b-flat.vmdk\"\n\
        RW 4194304 SPARSE \"c.vmdk\"\nNOACCESS 8 FLAT \"d.vmdk\" 63\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"4\"\n";

    fn parse(text: &str) -> Result<Descriptor> {
        Descriptor::parse(text.as_bytes())
    }

    #[test]
    fn a_good_descriptor_parses() {
        let descriptor = parse(GOOD).unwrap();
        assert_eq!(descriptor.cid, Some(0x7dc6_e2bc));
        assert!(!descriptor.has_parent());
        assert_eq!(descriptor.create_type.as_deref(), Some("monolithicFlat"));
        assert_eq!(descriptor.adapter.as_deref(), Some("lsilogic"));
        let [first, second, third, fourth, fifth] = &descriptor.extents[..] else { panic!("{descriptor:?}") };
        assert_eq!(
            first.storage,
            Storage::Flat { file: Reference::new("a disk; 1-flat.vmdk", Role::Extent), offset: 0 }
        );
        assert_eq!((second.sectors, &second.storage), (8, &Storage::Zero));
        assert_eq!(third.storage, Storage::Flat { file: Reference::new("b-flat.vmdk", Role::Extent), offset: 0 });
        assert_eq!(fourth.storage, Storage::Sparse { file: Reference::new("c.vmdk", Role::Extent) });
        assert_eq!((second.readable, fifth.readable), (true, false));
        assert_eq!(descriptor.len().unwrap(), (6_291_456 + 8 + 100 + 4_194_304 + 8) * 512);
    }

    #[test]
    fn case_blanks_line_ends_and_encodings_do_not_matter() {
        let text = format!(
            "\u{feff}\n\t {}",
            GOOD.replace('\n', "\r\n").replace("RW ", "  rw\t").replace("\nCID=", "\n cid = ")
        );
        assert_eq!(parse(&text).unwrap(), parse(GOOD).unwrap());
        let mut bytes =
            b"# Disk DescriptorFile\nencoding=\"GBK\"\nRW 8 FLAT \"\xb4\xc5\xc5\xcc.vmdk\" 5\n\0\0RW 9 garbage"
                .to_vec();
        let descriptor = Descriptor::parse(&bytes).unwrap();
        let file = Reference::new(*b"\xb4\xc5\xc5\xcc.vmdk", Role::Extent);
        assert_eq!(
            descriptor.extents,
            [ExtentLine { sectors: 8, readable: true, storage: Storage::Flat { file, offset: 5 } }]
        );
        assert_eq!(descriptor.encoding.as_deref(), Some("GBK"));
        let after_comments = format!("\n# written by hand\r\n\t#\n{GOOD}");
        assert_eq!(parse(&after_comments).unwrap(), parse(GOOD).unwrap());
        bytes.truncate(21);
        assert!(Descriptor::parse(&bytes).unwrap().extents.is_empty());
    }

    #[test]
    fn hostile_descriptors_are_refused() {
        let cases = [
            ("", "vmdk.descriptor"),
            ("root:x:0:0\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\ngarbage\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\nRW\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 0 FLAT \"a\" 0\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW -1 FLAT \"a\" 0\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 99999999999999999999 FLAT \"a\" 0\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 FLAT\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 FLAT \"a\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 FLAT \"a\" x\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 FLAT \"a\" 0 more\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 MAGIC \"a\" 0\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 VMFS \"a\" 8\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 VMFSRDM \"a\"\n", "vmdk.device"),
            ("# Disk DescriptorFile\nRW 8 VMFSRAW \"a\"\n", "vmdk.device"),
            ("# Disk DescriptorFile\ncreateType=\"vmfsRDM\"\nRW 8 FLAT \"a\" 0\n", "vmdk.device"),
            ("# Disk DescriptorFile\ncreateType=vmfsPassthroughRawDeviceMap\n", "vmdk.device"),
            (
                "# Disk DescriptorFile\ncreateType=\"fullDevice\"\nRW 8 FLAT \"\\\\.\\PhysicalDrive0\" 0\n",
                "vmdk.device",
            ),
            ("# Disk DescriptorFile\ncreateType = \"partitionedDevice\"\n", "vmdk.device"),
            ("# Disk DescriptorFile\nRW 8 SESPARSE \"a\" 8\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nRW 8 VMFSSPARSE\n", "vmdk.extent"),
            ("# Disk DescriptorFile\nNOACCESS FLAT \"a\" 0\n", "vmdk.extent"),
            ("# a comment\nversion=1\n# Disk DescriptorFile\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\nparentCID=1\nparentCID=ffffffff\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\nRW=1 8 FLAT\nWR 8 FLAT \"a\" 0\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\nCID=xyz\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\nCID=123456789\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\nCID=1\nCID=2\n", "vmdk.descriptor"),
            ("# Disk DescriptorFile\ncreateType=a\ncreateType=b\n", "vmdk.descriptor"),
        ];
        for (text, code) in cases {
            assert_eq!(parse(text).unwrap_err().code(), code, "{text}");
        }
        let huge = format!("# Disk DescriptorFile\n{}", format!("RW {} ZERO\n", u64::MAX).repeat(2));
        assert_eq!(parse(&huge).unwrap().len().unwrap_err().code(), "disk.too-large");
    }

    #[test]
    fn bounds_hold() {
        let of = |count| format!("# Disk DescriptorFile\n{}", "RW 8 ZERO\n".repeat(count));
        assert_eq!(parse(&of(limits::MAX_VMDK_EXTENTS)).unwrap().extents.len(), limits::MAX_VMDK_EXTENTS);
        assert_eq!(parse(&of(limits::MAX_VMDK_EXTENTS + 1)).unwrap_err().code(), "vmdk.extent");
        let mut text = GOOD.as_bytes().to_vec();
        text.resize(limits::MAX_VMDK_DESCRIPTOR, b'\n');
        assert!(Descriptor::parse(&text).is_ok());
        text.push(b'\n');
        assert_eq!(Descriptor::parse(&text).unwrap_err().code(), "vmdk.descriptor");
    }

    #[test]
    fn a_parent_is_noticed() {
        for line in ["parentCID=12345678", "parentCID=fffffffe", "parentFileNameHint=\"base.vmdk\""] {
            assert!(parse(&format!("# Disk DescriptorFile\n{line}\n")).unwrap().has_parent(), "{line}");
        }
    }

    #[test]
    fn every_truncation_parses_or_fails() {
        for len in 0..GOOD.len() {
            let _ = parse(&GOOD[..len]);
        }
    }
}
