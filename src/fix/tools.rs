//! Software of the old hypervisor: it is not started any more. Its files stay, since they are packages' and the guest's database of
//! packages must keep telling the truth; masks, overrides and links of run levels are the administrator's own.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod leftovers;

use super::draft::Draft;
use super::runlevel;
use crate::error::Result;
use crate::inspect::{Init, Tool};

pub(super) const FIX: &str = "tools";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    for tool in draft.facts().tools.iter().filter(|tool| tool.hypervisor != "kvm") {
        let why = format!("it serves {} and finds none on KVM", tool.hypervisor);
        match (&draft.facts().init, tool.unit) {
            (Init::Systemd(_), Some(unit)) => mask(draft, unit, &why)?,
            (Init::Systemd(_), None) => stays(draft, tool),
            _ => without_systemd(draft, tool, &why)?,
        }
    }
    leftovers::plan(draft)
}

fn mask(draft: &mut Draft<'_>, unit: &str, why: &str) -> Result<()> {
    let mask = format!("/etc/systemd/system/{unit}");
    match draft.tree().read_link(&mask)? {
        Some(target) if target == b"/dev/null" => Ok(()),
        None if !draft.tree().exists(&mask)? => draft.link(FIX, &mask, "/dev/null", &format!("mask {unit}"), why),
        _ => {
            draft.leave(&mask, format!("{unit} is not masked"), "the administrator has put a unit of their own there");
            Ok(())
        }
    }
}

/// A job of Upstart is switched off by an override, a script by its links.
fn without_systemd(draft: &mut Draft<'_>, tool: &Tool, why: &str) -> Result<()> {
    let name = tool.path.rsplit('/').next().unwrap_or_default();
    if let Some(job) = name.strip_suffix(".conf").filter(|_| tool.path.starts_with("/etc/init/")) {
        return override_job(draft, job, why);
    }
    let by_unit = tool.unit.and_then(|unit| unit.strip_suffix(".service"));
    let script = if tool.path.starts_with("/etc/init.d/") { Some(name) } else { by_unit };
    match script {
        Some(script) if draft.tree().is_file(format!("/etc/init.d/{script}"))? => {
            runlevel::off(draft, FIX, script, why)?;
        }
        // A unit that nothing starts here.
        Some(_) => {}
        None => stays(draft, tool),
    }
    Ok(())
}

/// The Upstart of RHEL 6 reads no overrides.
fn override_job(draft: &mut Draft<'_>, job: &str, why: &str) -> Result<()> {
    let os = &draft.facts().os;
    let is_red_hat = os.id.as_deref() == Some("rhel") || os.id_like.iter().any(|id| id == "rhel" || id == "fedora");
    if is_red_hat || draft.tree().is_file("/etc/redhat-release")? {
        let path = format!("/etc/init/{job}.conf");
        draft.leave(&path, format!("{job} is still started"), "this guest's Upstart is too old to have it overridden");
        return Ok(());
    }
    let path = format!("/etc/init/{job}.override");
    match draft.read(&path)? {
        None => draft.create(FIX, &path, "manual\n", &format!("do not start {job}"), why),
        Some((_, text)) if String::from_utf8_lossy(&text).lines().any(|line| line.trim() == "manual") => Ok(()),
        Some((path, _)) => {
            draft.leave(&path, format!("{job} is still started"), "the administrator has an override of their own");
            Ok(())
        }
    }
}

/// Nothing starts it by itself, or nothing that is known.
fn stays(draft: &mut Draft<'_>, tool: &Tool) {
    let what = format!("software for {} stays", tool.hypervisor);
    let why = match tool.path.as_str() {
        "/usr/bin/vmware-uninstall-tools.pl" => "it was installed without a package; it removes itself when it is run",
        "/var/lib/VBoxGuestAdditions/config" => {
            "it was installed without a package; uninstall.sh in INSTALL_DIR removes it"
        }
        "/usr/lib/parallels-tools/install" => "it was installed without a package; `install -r` removes it",
        _ => "it is not started by a systemd unit",
    };
    draft.leave(&tool.path, what, why);
}

#[cfg(test)]
mod tests;
