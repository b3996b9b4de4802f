//! What the text metadata says of a volume group, checked for what everything else relies on.

use std::collections::BTreeMap;

use super::text::Section;
use crate::error::{Error, Result};
use crate::limits;

/// Longest name of a group or volume.
const MAX_NAME: usize = 127;

/// A volume group as its metadata describes it.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) name: String,
    /// With dashes, as it is written.
    pub(super) uuid: String,
    /// Counts the changes.
    pub(super) seqno: u64,
    /// Bytes of an extent.
    pub(super) extent: u64,
    /// By the names that segments use: `pv0` …
    pub(super) physical: BTreeMap<String, Physical>,
    /// By name, hidden ones too.
    pub(super) logical: BTreeMap<String, Logical>,
}

/// A physical volume of a group.
#[derive(Clone, Debug)]
pub(super) struct Physical {
    /// Without dashes.
    pub(super) uuid: String,
    /// Where its first extent is, in bytes.
    pub(super) start: u64,
    /// Extents.
    pub(super) count: u64,
    /// LVM went on without it, so what it holds is old.
    pub(super) is_missing: bool,
}

/// A logical volume, visible or not.
#[derive(Clone, Debug)]
pub(super) struct Logical {
    pub(super) uuid: String,
    pub(super) is_visible: bool,
    pub(super) is_writable: bool,
    /// In order, without gaps.
    pub(super) segments: Vec<Segment>,
}

/// A part of a logical volume.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Extents, never none.
    pub(super) count: u64,
    /// Its type without the flags behind it.
    pub(super) kind: String,
    /// Flags behind the type: `+CROP_METADATA`.
    pub(super) flags: Vec<String>,
    pub(super) about: Section,
}

impl Described {
    /// Reads the one group that a metadata text is about.
    pub(super) fn read(text: &Section) -> Result<Self> {
        let mut sections = text.sections();
        let (Some((name, vg)), None) = (sections.next(), sections.next()) else {
            return Err(wrong("does not describe one volume group"));
        };
        check_name(name)?;
        if !matches!(vg.text("format"), None | Some("lvm2")) {
            return Err(wrong("is of another format"));
        }
        let extent = vg.count("extent_size").and_then(|sectors| sectors.checked_mul(512)).filter(|extent| *extent > 0);
        let physical = vg.section("physical_volumes").into_iter().flat_map(Section::sections);
        let logical = vg.section("logical_volumes").into_iter().flat_map(Section::sections);
        let mut group = Self {
            name: name.to_owned(),
            uuid: vg.text("id").ok_or_else(|| wrong("has no id"))?.to_owned(),
            seqno: vg.count("seqno").ok_or_else(|| wrong("has no seqno"))?,
            extent: extent.ok_or_else(|| wrong("has no extent_size"))?,
            physical: physical.map(|(name, pv)| Ok((name.to_owned(), Physical::read(pv)?))).collect::<Result<_>>()?,
            logical: BTreeMap::new(),
        };
        for (name, lv) in logical {
            if group.logical.len() >= limits::MAX_LVM_VOLUMES {
                return Err(Error::limit("lvm.metadata", "a volume group has too many volumes"));
            }
            check_name(name)?;
            group.logical.insert(name.to_owned(), Logical::read(lv)?);
        }
        group.check_claims()?;
        Ok(group)
    }
}

impl Described {
    /// The names of volumes that keep what was overwritten elsewhere.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = &str> {
        let segments = self.logical.values().flat_map(|lv| &lv.segments).filter(|segment| segment.kind == "snapshot");
        segments.filter_map(|segment| segment.about.text("cow_store").or_else(|| segment.about.text("merging_store")))
    }

    /// Makes sure that no two volumes share bytes: what is free in one would be in use in the other.
    fn check_claims(&self) -> Result<()> {
        let mut claims: Vec<(&str, u64, u64)> = Vec::new();
        for (kind, about, count) in
            self.logical.values().flat_map(|lv| &lv.segments).map(|s| (s.kind.as_str(), &s.about, s.count))
        {
            let areas = |key: &str, len: u64| {
                let pairs = about.list(key).chunks_exact(2);
                let area = move |pair: &'_ [super::text::Value]| {
                    let start = pair.last().and_then(super::text::Value::count).unwrap_or(0);
                    (start, start.saturating_add(len))
                };
                pairs
                    .filter_map(move |pair| Some((pair.first()?.text()?, area(pair))))
                    .map(|(name, (from, to))| (name, from, to))
                    .collect::<Vec<_>>()
            };
            match kind {
                "striped" | "linear" => {
                    let stripes = u64::try_from(about.list("stripes").len() / 2).unwrap_or(0);
                    claims.extend(areas("stripes", count.checked_div(stripes).unwrap_or(count)));
                }
                "mirror" => claims.extend(areas("mirrors", count)),
                _ => {}
            }
            let legs = about.list("raids").iter().chain(about.list("raid0_lvs")).filter_map(super::text::Value::text);
            let parts =
                ["metadata", "pool"].into_iter().filter(|_| kind == "thin-pool").filter_map(|key| about.text(key));
            claims.extend(legs.chain(parts).map(|name| (name, 0, u64::MAX)));
        }
        claims.sort_unstable();
        let is_shared = |pair: &[(&str, u64, u64)]| match pair {
            [(name, _, end), (other, start, _)] => name == other && start < end,
            _ => false,
        };
        if let Some([(name, ..), ..]) = claims.windows(2).find(|pair| is_shared(pair)) {
            return Err(wrong("lets two volumes share bytes").found(name));
        }
        match claims.iter().find(|(name, ..)| self.logical.get(*name).is_some_and(|lv| lv.is_visible)) {
            Some((name, ..)) => Err(wrong("makes a volume of another that is visible").found(name)),
            None => Ok(()),
        }
    }
}

impl Physical {
    fn read(about: &Section) -> Result<Self> {
        let start = about.count("pe_start").and_then(|sectors| sectors.checked_mul(512));
        Ok(Self {
            uuid: about.text("id").ok_or_else(|| wrong("has a physical volume without an id"))?.replace('-', ""),
            start: start.ok_or_else(|| wrong("has a physical volume without a pe_start"))?,
            count: about.count("pe_count").ok_or_else(|| wrong("has a physical volume without a pe_count"))?,
            is_missing: about.says("flags", "MISSING") || about.says("status", "MISSING"),
        })
    }
}

impl Logical {
    fn read(about: &Section) -> Result<Self> {
        let mut segments: Vec<(u64, Segment)> = Vec::new();
        for (name, segment) in about.sections().filter(|(name, _)| name.starts_with("segment")) {
            let field = |key: &str| segment.count(key).ok_or_else(|| wrong(&format!("has a {name} without a {key}")));
            let kind = segment.text("type").ok_or_else(|| wrong("has a segment without a type"))?;
            let mut words = kind.split('+');
            segments.push((
                field("start_extent")?,
                Segment {
                    count: field("extent_count")?,
                    kind: words.next().unwrap_or_default().to_owned(),
                    flags: words.map(str::to_owned).collect(),
                    about: segment.clone(),
                },
            ));
        }
        segments.sort_by_key(|(start, _)| *start);
        let mut next = 0_u64;
        for (start, segment) in &segments {
            if *start != next || segment.count == 0 {
                return Err(wrong("has a volume whose segments leave gaps or overlap"));
            }
            next = next.checked_add(segment.count).ok_or_else(|| wrong("has a volume of too many extents"))?;
        }
        Ok(Self {
            uuid: about.text("id").unwrap_or_default().to_owned(),
            is_visible: about.says("status", "VISIBLE"),
            is_writable: about.says("status", "WRITE"),
            segments: segments.into_iter().map(|(_, segment)| segment).collect(),
        })
    }
}

/// Names become those of devices, exports and files, so only LVM's own characters are let through.
fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    let is_good = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_plain);
    if is_good && !name.starts_with('-') && name != "." && name != ".." {
        return Ok(());
    }
    Err(wrong("has a name that LVM does not allow").found(name))
}

fn wrong(what: &str) -> Error {
    Error::corrupt("lvm.metadata", format!("LVM's metadata {what}"))
}
