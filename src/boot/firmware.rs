//! Where the distributions keep OVMF.

use std::path::PathBuf;

use super::Firmware;
use crate::error::{Error, Result};

/// A UEFI firmware: its code, and the template of its variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uefi {
    pub(super) code: PathBuf,
    pub(super) variables: PathBuf,
}

/// Pairs of code and variables without secure boot, the larger flash first: Debian and Ubuntu, Fedora and RHEL, SUSE, Arch,
/// then what QEMU itself ships.
const PLACES: &[(&str, &str)] = &[
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
];

/// The files that `firmware` needs; a BIOS needs none, since QEMU brings it.
pub(super) fn find(firmware: Firmware) -> Result<Option<Uefi>> {
    if firmware == Firmware::Bios {
        return Ok(None);
    }
    let found = PLACES
        .iter()
        .map(|(code, variables)| Uefi { code: code.into(), variables: variables.into() })
        .find(|uefi| uefi.code.is_file() && uefi.variables.is_file());
    found.map(Some).ok_or_else(|| {
        Error::failed("boot.firmware-missing", "no UEFI firmware for QEMU is installed")
            .hint("install the package ovmf (Debian), edk2-ovmf (Fedora) or qemu-ovmf-x86_64 (SUSE)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bios_needs_no_file_and_debian_has_ovmf() {
        assert_eq!(find(Firmware::Bios).unwrap(), None);
        let uefi = find(Firmware::Uefi).unwrap().unwrap();
        assert!(uefi.code.is_file() && uefi.variables.is_file());
    }
}
