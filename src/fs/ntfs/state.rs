//! Whether a volume was left in order: its flags, its log, a hibernated system; and which of its clusters are free.

use std::ops::{ControlFlow, Range};

use super::record::{DATA, VOLUME_INFORMATION, VOLUME_NAME, fix};
use super::{BITMAP_FILE, LOG_FILE, Ntfs, VOLUME_FILE};
use crate::disk::bytes::{array, is_at, le16, le32, le64, long, size, u8_at};
use crate::error::Result;
use crate::fs::Filesystem;
use crate::fs::{bits, utf16};

/// What the volume says of itself.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) label: Option<String>,
    pub(super) version: (u8, u8),
    pub(super) dirty: bool,
    pub(super) hibernated: bool,
    /// Whether the log holds changes that are not in place yet.
    pub(super) logged: bool,
}

impl Ntfs {
    pub(super) fn state(&self) -> Result<State> {
        let volume = self.file(VOLUME_FILE)?;
        let label: Option<Vec<u16>> = volume
            .value(VOLUME_NAME)
            .map(|name| name.chunks_exact(2).map(|pair| u16::from_le_bytes(array(pair, 0))).collect());
        let label = label.map(|units| String::from_utf8_lossy(&utf16::to_bytes(&units)).into_owned());
        let information = volume.value(VOLUME_INFORMATION).unwrap_or_default();
        Ok(State {
            label: label.filter(|label| !label.is_empty()),
            version: (u8_at(information, 8), u8_at(information, 9)),
            // Any flag is one of something to be done when it is mounted next.
            dirty: le16(information, 10) & 1 != 0,
            hibernated: self.is_hibernated()?,
            logged: !self.is_log_clean()?,
        })
    }

    fn is_hibernated(&self) -> Result<bool> {
        let Some(inode) = self.lookup(self.root(), b"hiberfil.sys")? else { return Ok(false) };
        let mut magic = [0; 4];
        // A file that was emptied, or that the system woke up from, has another one.
        Ok(matches!(self.read_at(inode, &mut magic, 0), Ok(4)) && magic.eq_ignore_ascii_case(b"hibr"))
    }

    /// Whether the restart pages of the log say that the volume was left in order. A log that was reset holds only ones.
    fn is_log_clean(&self) -> Result<bool> {
        let log = self.file(LOG_FILE)?;
        let Some(stream) = log.stream(DATA, &[], self)? else { return Ok(false) };
        let mut first = vec![0; size(stream.len().min(4096))];
        self.read_stream(&stream, &mut first, 0)?;
        if first.iter().all(|byte| *byte == 0xff) {
            return Ok(true);
        }
        let page = size(u64::from(le32(&first, 16))).clamp(512, 65536);
        let mut newest: Option<(u64, bool)> = None;
        for number in 0..2 {
            let mut bytes = vec![0; page];
            let at = long(page).saturating_mul(number);
            if at.saturating_add(long(page)) > stream.len() || self.read_stream(&stream, &mut bytes, at).is_err() {
                continue;
            }
            if !is_at(&bytes, 0, b"RSTR") || fix(&mut bytes, *b"RSTR", at).is_err() {
                continue;
            }
            let area = bytes.get(usize::from(le16(&bytes, 24))..).unwrap_or_default();
            let clean = le16(area, 12) == 0xffff || le16(area, 14) & 2 != 0;
            let lsn = le64(area, 0);
            if newest.is_none_or(|(newest, _)| lsn > newest) {
                newest = Some((lsn, clean));
            }
        }
        Ok(newest.is_some_and(|(_, clean)| clean))
    }

    /// Visits the free clusters by `$Bitmap`, neighbours together.
    pub(super) fn free_clusters(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        let Some(bitmap) = self.file(BITMAP_FILE)?.stream(DATA, &[], self)? else { return Ok(()) };
        let clusters = self.boot.clusters.min(bitmap.len().saturating_mul(8));
        bits::clear_runs(clusters, |buf, at| self.read_stream(&bitmap, buf, at), visit)
    }
}
