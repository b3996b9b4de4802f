//! Files that the user gives.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{FIX, NewFile, WHY, absent, bad_value};
use crate::error::{Error, Result};
use crate::fix::draft::{Draft, Put};

/// Where `file` goes, it replaces what is there; a file that is there keeps its owner and mode.
pub(super) fn plan(draft: &mut Draft<'_>, file: &NewFile) -> Result<()> {
    let path = &file.path;
    let is_path = path.starts_with('/')
        && path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."))
        && !path.chars().any(char::is_control);
    if !is_path {
        return Err(bad_value("absolute path of a file", path));
    }
    let (uid, gid) = file.owner.as_deref().map_or(Ok((0, 0)), |owner| owner_of(draft, owner))?;
    let mode = file.mode.unwrap_or(0o644);
    if let Some(found) = draft.tree().find(path)? {
        let (mode, uid, gid) = (found.stat.mode, found.stat.uid, found.stat.gid);
        let keeps = file.mode.is_none_or(|wanted| wanted == mode);
        let owned = file.owner.is_none() || owner_of(draft, file.owner.as_deref().unwrap_or_default())? == (uid, gid);
        if !keeps || !owned {
            return Err(Error::unsupported("inject.impossible", "a file that is there keeps its owner and mode")
                .at(path)
                .found(format!("mode {mode:o} of {uid}:{gid}")));
        }
    }
    let put = Put { mode, uid, gid, is_private: mode & 0o077 == 0, selinux: None };
    draft.put(FIX, path, &put, file.content.clone(), "put the file that was given", WHY)
}

/// `USER`, `USER:GROUP`, by name or number.
fn owner_of(draft: &mut Draft<'_>, owner: &str) -> Result<(u32, u32)> {
    let (user, group) = owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group)));
    let (uid, own) = number(draft, "/etc/passwd", user)?;
    let gid = match group {
        Some(group) => number(draft, "/etc/group", group)?.0,
        None => own.unwrap_or(uid),
    };
    Ok((uid, gid))
}

/// The number of a user or group, with the number behind it: a user's own group.
fn number(draft: &mut Draft<'_>, table: &str, name: &str) -> Result<(u32, Option<u32>)> {
    if let Ok(number) = name.parse() {
        return Ok((number, None));
    }
    let text = draft.read(table)?.map(|(_, text)| text).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [found, _, number, rest @ ..] = fields.as_slice()
            && *found == name
            && let Ok(number) = number.parse()
        {
            return Ok((number, rest.first().and_then(|own| own.parse().ok())));
        }
    }
    Err(absent(format!("{table} of the guest does not have the owner of a file"), name))
}
