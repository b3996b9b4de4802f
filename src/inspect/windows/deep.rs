//! Facts of a Windows that take more reading: what `inspect --deep` adds.

use serde::Serialize;

use super::accounts::{self, Account, Accounts, Group};
use super::software::{self, Application};
use super::tasks::{self, Task};
use super::updates::{self, Hotfix};
use super::{HiveFile, Reader, Windows, resolve};
use crate::error::Result;
use crate::inspect::roots::Root;

/// What is known of an installed Windows beyond [`Windows`].
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WindowsDeep {
    /// The machine's own security identifier, from which those of its users are made.
    pub machine_sid: Option<String>,
    /// Local users.
    pub users: Vec<Account>,
    /// Local groups.
    pub groups: Vec<Group>,
    /// Scheduled tasks.
    pub tasks: Vec<Task>,
    /// Updates, whatever became of them.
    pub hotfixes: Vec<Hotfix>,
    /// Applications that single users installed for themselves.
    pub user_applications: Vec<UserApplications>,
    /// The hives that were read for this, and whether they were complete.
    pub hives: Vec<HiveFile>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// What a user installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UserApplications {
    /// The user's security identifier.
    pub sid: String,
    /// The directory of the profile, as the registry has it.
    pub profile: String,
    /// The applications.
    pub applications: Vec<Application>,
}

/// The hive of this user is `DEFAULT`, and has no applications of its own.
const LOCAL_SYSTEM: &str = "S-1-5-18";

/// Reads the further facts of the Windows at `root`, of which `facts` are known.
pub fn deep(root: &Root, facts: &Windows) -> Result<WindowsDeep> {
    let mut reader = Reader { tree: &root.tree, notes: Vec::new(), hives: Vec::new() };
    let mut deep = WindowsDeep::default();
    let config = format!("{}/System32/config", facts.system_root);
    if let Some(hive) = reader.hive(&format!("{config}/SAM"))? {
        let read = accounts::read(&hive);
        let Accounts { machine_sid, users, groups } = reader.part("the users", read)?;
        (deep.machine_sid, deep.users, deep.groups) = (machine_sid, users, groups);
    }
    if let Some(hive) = reader.hive(&format!("{config}/SOFTWARE"))? {
        deep.tasks = tasks::read(&mut reader, &hive, &facts.system_root)?;
        deep.hotfixes = reader.part("the hotfixes", updates::read(&hive))?;
    }
    for (sid, profile) in facts.profiles.iter().filter(|(sid, _)| sid != LOCAL_SYSTEM) {
        let applications = applications(&mut reader, root, facts, profile)?;
        if !applications.is_empty() {
            deep.user_applications.push(UserApplications { sid: sid.clone(), profile: profile.clone(), applications });
        }
    }
    (deep.notes, deep.hives) = (reader.notes, reader.hives);
    Ok(deep)
}

fn applications(reader: &mut Reader<'_>, root: &Root, facts: &Windows, profile: &str) -> Result<Vec<Application>> {
    let Some(path) = local_path(root, facts, profile) else {
        reader.notes.push(format!("the profile {profile} lies on another volume"));
        return Ok(Vec::new());
    };
    // A profile that was never used has none.
    let path = format!("{path}/NTUSER.DAT");
    if resolve(reader.tree, &path)?.is_none() {
        return Ok(Vec::new());
    }
    let Some(hive) = reader.hive(&path)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (key, is_wow64) in [
        ("Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall", false),
        ("Software\\Wow6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall", true),
    ] {
        found.extend(reader.part(&path, software::applications(&hive, key, is_wow64))?);
    }
    Ok(found)
}

/// Where a path of Windows leads in its own volume; `None` for one that leads to another.
fn local_path(root: &Root, facts: &Windows, path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    if let Some(rest) = path.strip_prefix('%')
        && let Some((variable, rest)) = rest.split_once('%')
    {
        return match variable.to_ascii_lowercase().as_str() {
            "systemroot" | "windir" => Some(format!("{}{rest}", facts.system_root)),
            "systemdrive" => Some(rest.to_owned()),
            _ => None,
        };
    }
    let (letter, rest) = path.split_once(':')?;
    let drive = facts.drives.iter().find(|drive| letter.eq_ignore_ascii_case(&drive.letter.to_string()));
    let is_here = drive.is_none_or(|drive| drive.volume.is_none_or(|volume| volume == root.volume));
    is_here.then(|| rest.to_owned())
}
