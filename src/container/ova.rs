//! An OVA: a tar archive of a descriptor, a manifest and disks, read in place.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;
use std::sync::Arc;

use super::bundle::Members;
use super::digests::{self, Digests, Verified};
use super::manifest::{Expected, Manifest};
use super::ovf::Ovf;
use super::tar::{Archive, Member};
use crate::cache::BlockCache;
use crate::disk::{Checked, Disk, Slice, read_vec};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::Session;

/// An OVA, its headers and descriptor read.
#[derive(Debug)]
pub struct Ova {
    disk: Arc<Checked<BlockCache>>,
    archive: Archive,
    /// The machine.
    pub ovf: Ovf,
    /// The name of the descriptor's member.
    pub descriptor: String,
    /// What the manifest says, if there is one.
    pub manifest: Option<Manifest>,
    /// Digests that are known to be right already: the descriptor's.
    pub verified: Vec<Verified>,
    /// What is odd, one sentence each.
    pub notes: Vec<String>,
}

impl Ova {
    /// Reads the headers, the descriptor and the manifest of the archive that `disk` holds.
    ///
    /// # Errors
    /// `tar.*`, `ovf.*` and `ova.*` codes.
    pub fn open(disk: &Arc<Checked<BlockCache>>) -> Result<Self> {
        let archive = Archive::read(&**disk)?;
        let member = descriptor(&archive)?;
        let name = member.name.clone();
        let bytes = text(&**disk, member, limits::MAX_OVF)?;
        let manifest = match manifest(&archive, &name)? {
            Some(member) => Some(
                Manifest::parse(&text(&**disk, member, limits::MAX_MANIFEST)?)
                    .map_err(|error| error.at(&member.name))?,
            ),
            None => None,
        };
        let verified = check_descriptor(manifest.as_ref(), &name, &bytes)?;
        let ovf = Ovf::parse(&bytes).map_err(|error| error.at(&name))?;
        let mut notes = [archive.notes.clone(), ovf.notes.clone()].concat();
        if manifest.is_none() {
            notes.push("the package has no manifest, so nothing vouches for its bytes".into());
        }
        Ok(Self { disk: Arc::clone(disk), archive, ovf, descriptor: name, manifest, verified, notes })
    }

    /// The file that the descriptor calls `href`.
    ///
    /// # Errors
    /// `ova.missing` when there is none, `tar.duplicate` when there are several.
    pub fn file(&self, href: &str) -> Result<Arc<dyn Disk>> {
        let member = self.member(href)?;
        let disk: Arc<dyn Disk> = Arc::<Checked<BlockCache>>::clone(&self.disk);
        Ok(Checked::wrap(Slice::new(member.name.clone(), disk, member.range.clone())?))
    }

    /// Starts to watch the source for the manifest's digests, of the files whose names are `wanted`; `None` without a manifest.
    ///
    /// # Errors
    /// `ova.missing` when the manifest lists a file that is not there.
    pub fn digests(&self, wanted: &dyn Fn(&str) -> bool, session: &Arc<Session>) -> Result<Option<Digests>> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        let mut files: Vec<(Range<u64>, Expected)> = Vec::new();
        let wanted = |expected: &&Expected| expected.name != self.descriptor && wanted(&expected.name);
        for expected in manifest.digests.iter().filter(wanted) {
            files.push((self.member(&expected.name)?.range.clone(), expected.clone()));
        }
        let mut digests = Digests::default();
        digests.watch(&self.disk, files, session);
        Ok(Some(digests))
    }

    /// By the name as written, else with its percent escapes resolved: an href is a URI reference.
    fn member(&self, href: &str) -> Result<&Member> {
        let name = href.strip_prefix("./").unwrap_or(href);
        if let Some(member) = self.archive.find(name)? {
            return Ok(member);
        }
        let unescaped = unescape(name).filter(|unescaped| unescaped != name);
        let member = match unescaped {
            Some(unescaped) => self.archive.find(&unescaped)?,
            None => None,
        };
        member.ok_or_else(|| {
            Error::new(Kind::NotFound, "ova.missing", "the package does not hold a file that it lists").at(href)
        })
    }
}

impl Members for Ova {
    fn file(&self, name: &str) -> Result<Arc<dyn Disk>> {
        Self::file(self, name)
    }
}

/// Checks the descriptor's bytes against the manifest, if that lists it.
///
/// # Errors
/// `ova.digest`.
pub fn check_descriptor(manifest: Option<&Manifest>, name: &str, bytes: &[u8]) -> Result<Vec<Verified>> {
    match manifest.and_then(|manifest| manifest.find(name)) {
        Some(expected) => Ok(vec![digests::verify(bytes, expected)?]),
        None => Ok(Vec::new()),
    }
}

/// Resolves the percent escapes of a URI reference; `None` when the result is not text.
#[must_use]
pub fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from((high << 4) | low).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(bytes).ok()
}

/// The one `.ovf` member.
fn descriptor(archive: &Archive) -> Result<&Member> {
    let mut found = archive.members.iter().filter(|member| has_extension(&member.name, "ovf"));
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (None, _) => Err(Error::corrupt("ova.descriptor", "the archive holds no .ovf descriptor")),
        (Some(_), Some(_)) => Err(Error::unsupported("ova.descriptor", "the archive holds several .ovf descriptors")),
    }
}

/// The manifest: named as the descriptor is, or the only one.
fn manifest<'a>(archive: &'a Archive, descriptor: &str) -> Result<Option<&'a Member>> {
    let stem = descriptor.len().checked_sub(4).and_then(|end| descriptor.get(..end)).unwrap_or(descriptor);
    if let Some(member) = archive.find(&format!("{stem}.mf"))? {
        return Ok(Some(member));
    }
    let mut found = archive.members.iter().filter(|member| has_extension(&member.name, "mf"));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Error::corrupt("ova.manifest", "the archive holds several manifests")),
        (member, None) => Ok(member),
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, found)| !stem.is_empty() && found.eq_ignore_ascii_case(extension))
}

/// A small member's bytes.
fn text(disk: &dyn Disk, member: &Member, most: usize) -> Result<Vec<u8>> {
    let len = member.range.end.saturating_sub(member.range.start);
    let len = usize::try_from(len).ok().filter(|len| *len <= most).ok_or_else(|| {
        Error::limit("ova.descriptor", "a text file of the package is too large")
            .at(&member.name)
            .expected(format!("at most {most} bytes"))
            .found(len)
    })?;
    read_vec(disk, member.range.start, len)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
pub(crate) mod tests {
    use super::*;
    use crate::container::tar::tests::{end, member};
    use crate::disk::Memory;
    use sha2::{Digest, Sha256};

    /// A descriptor of a machine with one disk in `href`.
    pub(crate) fn ovf(href: &str) -> String {
        format!(
            "<Envelope><References><File id='f' href='{href}'/></References><DiskSection><Disk diskId='d' fileRef='f' \
             capacity='4096'/></DiskSection><VirtualSystem id='vm'/></Envelope>"
        )
    }

    /// A manifest of these files.
    pub(crate) fn mf(files: &[(&str, &[u8])]) -> String {
        let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        files.iter().map(|(name, bytes)| format!("SHA256({name})= {}\n", hex(bytes))).collect()
    }

    /// A tar archive of these members.
    pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes: Vec<u8> = members.iter().flat_map(|(name, content)| member(name, b'0', content)).collect();
        bytes.extend(end());
        bytes
    }

    type Part<'a> = (&'a str, &'a [u8]);

    fn open(members: &[(&str, &[u8])]) -> Result<(Ova, Arc<Session>)> {
        let session = Session::with_defaults();
        let cache = BlockCache::wrap(Checked::wrap(Memory::new(archive(members))), &session);
        Ok((Ova::open(&cache)?, session))
    }

    fn code(members: &[(&str, &[u8])]) -> &'static str {
        let result = open(members).and_then(|(ova, session)| {
            for disk in &ova.ovf.disks {
                ova.file(disk.href.as_deref().unwrap_or_default())?;
            }
            match ova.digests(&|_| true, &session)? {
                Some(digests) => digests.finish().map(|_| ()),
                None => Ok(()),
            }
        });
        result.map_or_else(|error| error.code(), |()| "ok")
    }

    #[test]
    fn members_are_read_in_place() {
        let (text, disk) = (ovf("a.vmdk"), vec![7; 4096]);
        let manifest = mf(&[("g.ovf", text.as_bytes()), ("a.vmdk", &disk)]);
        let members: [(&str, &[u8]); 3] =
            [("a.vmdk", &disk), ("g.mf", manifest.as_bytes()), ("g.ovf", text.as_bytes())];
        let (ova, session) = open(&members).unwrap();
        assert_eq!((ova.descriptor.as_str(), ova.verified.len()), ("g.ovf", 1));
        let file = ova.file("./a.vmdk").unwrap();
        assert_eq!(read_vec(&*file, 0, 4096).unwrap(), disk);
        let verified = ova.digests(&|_| true, &session).unwrap().unwrap().finish().unwrap();
        assert_eq!(verified.len(), 1);
        assert!(!ova.notes.iter().any(|note| note.contains("manifest")), "{:?}", ova.notes);
    }

    #[test]
    fn names_may_be_escaped() {
        let text = ovf("my%20disk.vmdk");
        assert_eq!(code(&[("g.ovf", text.as_bytes()), ("my disk.vmdk", b"1")]), "ok");
        assert_eq!(code(&[("g.ovf", text.as_bytes()), ("my%20disk.vmdk", b"1")]), "ok");
        assert_eq!(unescape("a%2"), Some("a%2".into()));
        assert_eq!(unescape("%ff"), None);
    }

    #[test]
    fn hostile_packages_are_refused() {
        let text = ovf("a.vmdk");
        let good: (&str, &[u8]) = ("g.ovf", text.as_bytes());
        let disk: (&str, &[u8]) = ("a.vmdk", b"1");
        let wrong = mf(&[("g.ovf", b"other")]);
        let wrong_disk = mf(&[("a.vmdk", b"other")]);
        let absent = mf(&[("b.vmdk", b"other")]);
        let outside = ovf("../a.vmdk");
        let host = ovf("file:///etc/passwd");
        let cases: Vec<(&str, Vec<Part<'_>>, &str)> = vec![
            ("no descriptor", vec![disk], "ova.descriptor"),
            ("two descriptors", vec![good, ("h.ovf", text.as_bytes()), disk], "ova.descriptor"),
            ("the same twice", vec![good, good, disk], "ova.descriptor"),
            ("no disk", vec![good], "ova.missing"),
            ("two disks of one name", vec![good, disk, disk], "tar.duplicate"),
            ("descriptor digest", vec![good, ("g.mf", wrong.as_bytes()), disk], "ova.digest"),
            ("disk digest", vec![good, ("g.mf", wrong_disk.as_bytes()), disk], "ova.digest"),
            ("digest of nothing", vec![good, ("g.mf", absent.as_bytes()), disk], "ova.missing"),
            ("two manifests", vec![good, ("a.mf", b""), ("b.mf", b""), disk], "ova.manifest"),
            ("garbage manifest", vec![good, ("g.mf", b"garbage"), disk], "ova.manifest"),
            ("garbage descriptor", vec![("g.ovf", b"garbage"), disk], "ovf.xml"),
            ("leads outside", vec![("g.ovf", outside.as_bytes()), disk], "ova.missing"),
            ("leads to the host", vec![("g.ovf", host.as_bytes()), disk], "ova.missing"),
        ];
        for (name, members, expected) in cases {
            assert_eq!(code(&members), expected, "{name}");
        }
    }

    #[test]
    fn large_text_is_not_read() {
        let huge = vec![b' '; limits::MAX_OVF + 1];
        assert_eq!(code(&[("g.ovf", &huge)]), "ova.descriptor");
        let text = ovf("a.vmdk");
        let huge = vec![b'\n'; limits::MAX_MANIFEST + 1];
        assert_eq!(code(&[("g.ovf", text.as_bytes()), ("g.mf", &huge)]), "ova.descriptor");
    }
}
