//! The program that UEFI starts when it knows of nothing else: `\EFI\BOOT\BOOT<arch>.EFI`. What the old machine's firmware knew
//! is in its variables, which do not come along.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::Left;
use super::draft::Draft;
use crate::error::Result;
use crate::inspect::{BootloaderKind, EfiProgram, EfiProgramKind};

const WHY: &str = "the new machine's firmware has no boot entries, and starts this program only";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    if !draft.machine().uefi {
        return Ok(());
    }
    let programs = &draft.facts().efi_programs;
    if programs.iter().any(|program| program.kind == EfiProgramKind::Fallback) {
        return Ok(());
    }
    match choose(draft) {
        Some(chosen) => copy(draft, &chosen),
        None => {
            let kernel = draft.facts().boot_entries.iter().find(|entry| entry.kind == BootloaderKind::Uki);
            let path = kernel.map(|entry| entry.config.clone());
            draft.left(Left {
                path: path.unwrap_or_else(|| "/boot/efi".to_owned()),
                what: "there is no program at the place where firmware looks for one".to_owned(),
                why: "no GRUB, shim or systemd-boot was found that could be copied there".to_owned(),
                stops_boot: true,
            });
            Ok(())
        }
    }
}

/// A boot loader's programs in one directory.
struct Chosen {
    /// What firmware is to start.
    first: EfiProgram,
    /// What that starts from its own directory.
    others: Vec<EfiProgram>,
}

/// The loader of the guest's distribution, else any: shim with GRUB, GRUB, systemd-boot.
fn choose(draft: &Draft<'_>) -> Option<Chosen> {
    let id = draft.facts().os.id.clone().unwrap_or_default();
    let programs = &draft.facts().efi_programs;
    let of = |kind: EfiProgramKind| {
        let is_own = |program: &&EfiProgram| !id.is_empty() && vendor(&program.path).eq_ignore_ascii_case(&id);
        let mut found = programs.iter().filter(move |program| program.kind == kind && arch(&program.path).is_some());
        let all: Vec<&EfiProgram> = found.by_ref().collect();
        all.iter().copied().find(is_own).or_else(|| all.first().copied())
    };
    if let Some(shim) = of(EfiProgramKind::Shim) {
        let is_beside = |program: &&EfiProgram| {
            vendor(&program.path) == vendor(&shim.path)
                && arch(&program.path) == arch(&shim.path)
                && matches!(program.kind, EfiProgramKind::Grub | EfiProgramKind::MokManager)
        };
        let others: Vec<EfiProgram> = programs.iter().filter(is_beside).cloned().collect();
        if others.iter().any(|program| program.kind == EfiProgramKind::Grub) {
            return Some(Chosen { first: shim.clone(), others });
        }
    }
    let alone = of(EfiProgramKind::Grub).or_else(|| of(EfiProgramKind::SystemdBoot))?;
    Some(Chosen { first: alone.clone(), others: Vec::new() })
}

fn copy(draft: &mut Draft<'_>, chosen: &Chosen) -> Result<()> {
    let Some((esp, arch)) = chosen.first.path.split_once("/EFI/").map(|(esp, _)| esp).zip(arch(&chosen.first.path))
    else {
        return Ok(());
    };
    let listed = draft.tree().list(format!("{esp}/EFI"))?;
    let known = listed.iter().filter_map(|entry| entry.text()).find(|name| name.eq_ignore_ascii_case("BOOT"));
    let dir = format!("{esp}/EFI/{}", known.unwrap_or("BOOT"));
    let target = format!("{dir}/BOOT{}.EFI", arch.to_ascii_uppercase());
    draft.copy(
        "bootloader",
        &chosen.first.path,
        &target,
        "copy the boot loader to where firmware looks for it",
        WHY,
    )?;
    for program in &chosen.others {
        let name = program.path.rsplit('/').next().unwrap_or_default();
        draft.copy("bootloader", &program.path, &format!("{dir}/{name}"), "copy what the boot loader starts", WHY)?;
    }
    forward(draft, esp, &dir, &chosen.first)
}

/// GRUB that looks for its configuration where it was started from is led to the one that the guest's tools keep.
fn forward(draft: &mut Draft<'_>, esp: &str, dir: &str, program: &EfiProgram) -> Result<()> {
    let from = program.path.rsplit_once('/').map_or("", |(from, _)| from);
    if program.kind == EfiProgramKind::SystemdBoot || !draft.tree().is_file(format!("{from}/grub.cfg"))? {
        return Ok(());
    }
    let Some(place) = from.strip_prefix(esp) else { return Ok(()) };
    let machine = draft.machine();
    let mount = draft.tree().mount_of(from)?.to_vec();
    let mounted = draft.tree().mounts().find(|(at, _)| *at == mount.as_slice());
    let Some(uuid) = mounted.and_then(|(_, fs)| fs.facts().uuid.clone()).filter(|uuid| {
        let spec = format!("UUID={uuid}");
        uuid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && machine.resolve(&spec).is_some()
    }) else {
        return Ok(());
    };
    let content = format!(
        "search --no-floppy --fs-uuid --set=root {uuid}\nset prefix=($root){place}\nconfigfile ($root){place}/grub.cfg\n"
    );
    let what = "lead the copy of GRUB to its configuration";
    draft.create("bootloader", &format!("{dir}/grub.cfg"), &content, what, WHY)
}

/// The directory below `EFI` that a program lies in.
fn vendor(path: &str) -> &str {
    path.split_once("/EFI/").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default()
}

/// The end of a program's name that tells the processor: `x64` of `grubx64.efi`.
fn arch(path: &str) -> Option<&'static str> {
    const ARCHS: &[&str] = &["x64", "ia32", "aa64", "arm", "riscv64", "loongarch64"];
    let name = path.rsplit('/').next()?.to_ascii_lowercase();
    let name = name.strip_suffix(".efi")?;
    let name = name.strip_suffix(".signed").unwrap_or(name);
    ARCHS.iter().copied().find(|arch| name.ends_with(arch))
}
