//! Services without systemd, switched off as the guest's own tools do it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::Draft;
use crate::error::Result;
use crate::fs::FileKind;

/// Levels in which System V's init starts services.
const LEVELS: &[&str] = &["1", "2", "3", "4", "5", "S"];

/// Takes a script out of the run levels that it is started in: OpenRC's links go (`rc-update del`), those of System V's init that
/// start it become ones that stop it (`chkconfig off`, `update-rc.d disable`). Gives whether it was in any.
pub(super) fn off(draft: &mut Draft<'_>, fix: &'static str, script: &str, why: &str) -> Result<bool> {
    let (mut was_on, what) = (false, format!("do not start {script}"));
    for level in draft.tree().list("/etc/runlevels")? {
        let Some(level) = level.text() else { continue };
        let link = format!("/etc/runlevels/{level}/{script}");
        if draft.tree().find_link(&link)?.is_some() {
            was_on = true;
            draft.remove(fix, &link, &what, why)?;
        }
    }
    for dir in level_dirs(draft)? {
        let listed = draft.tree().list(&dir)?;
        let names: Vec<&str> = listed.iter().filter_map(|entry| entry.text()).collect();
        let stops = names.iter().any(|name| order(name, 'K', script).is_some());
        for name in &names {
            let Some(order) = order(name, 'S', script) else { continue };
            was_on = true;
            let link = format!("{dir}/{name}");
            if stops {
                draft.remove(fix, &link, &what, why)?;
            } else {
                let order = 100_u32.saturating_sub(order).min(99);
                draft.rename(fix, &link, &format!("{dir}/K{order:02}{script}"), &what, why)?;
            }
        }
    }
    Ok(was_on)
}

/// The directories of System V's run levels, wherever the distribution has them.
fn level_dirs(draft: &Draft<'_>) -> Result<Vec<String>> {
    let mut dirs: Vec<String> = Vec::new();
    for level in LEVELS {
        // A link may lead from one of these places to another.
        for place in ["/etc/rc.d", "/etc/init.d", "/etc"] {
            let found = draft.tree().find(format!("{place}/rc{level}.d"))?;
            let found = found.filter(|found| found.stat.kind == FileKind::Directory);
            let dir = found.and_then(|found| found.text().map(str::to_owned));
            dirs.extend(dir.filter(|dir| !dirs.contains(dir)));
        }
    }
    Ok(dirs)
}

/// The two digits of a link `S20NAME` or `K20NAME` of this script.
fn order(link: &str, kind: char, script: &str) -> Option<u32> {
    let (digits, name) = link.strip_prefix(kind)?.split_at_checked(2)?;
    if name == script { digits.parse().ok() } else { None }
}
