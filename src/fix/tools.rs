//! Software of the old hypervisor: its units are masked, so that they do not run; nothing is removed.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::Draft;
use crate::error::Result;
use crate::inspect::Init;

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let is_systemd = matches!(draft.facts().init, Init::Systemd(_));
    for tool in draft.facts().tools.iter().filter(|tool| tool.hypervisor != "kvm") {
        let why = format!("it serves {} and finds none on KVM", tool.hypervisor);
        let Some(unit) = tool.unit.filter(|_| is_systemd) else {
            draft.leave(
                &tool.path,
                format!("software for {} stays", tool.hypervisor),
                "it is not started by a systemd unit",
            );
            continue;
        };
        let mask = format!("/etc/systemd/system/{unit}");
        match draft.tree().read_link(&mask)? {
            Some(target) if target == b"/dev/null" => {}
            None if !draft.tree().exists(&mask)? => {
                draft.link("tools", &mask, "/dev/null", &format!("mask {unit}"), &why)?;
            }
            _ => draft.leave(
                &mask,
                format!("{unit} is not masked"),
                "the administrator has put a unit of their own there",
            ),
        }
    }
    Ok(())
}
