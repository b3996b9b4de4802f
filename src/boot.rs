//! Boot tests: starts an image under QEMU, reads its serial console, and says whether the guest came up.
//!
//! The image is never written: QEMU keeps all changes in an unnamed snapshot that is gone with it. The guest cannot reach the
//! host or any network; it gets an address from QEMU's own DHCP server and nothing else. QEMU ends with this process.
//!
//! QEMU opens what an image refers to (backing files, extents); a caller checks an image's references before it tests it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::session::Session;

mod command;
mod console;
mod firmware;
mod qemu;
mod signs;

/// What to boot and what to wait for.
#[derive(Clone, Debug)]
pub struct BootTest {
    /// The machine's disks in order; the first is booted.
    pub disks: Vec<Image>,
    /// What the disks are attached to.
    pub bus: Bus,
    /// The network card.
    pub nic: Nic,
    /// What starts the boot loader.
    pub firmware: Firmware,
    /// What runs the guest's code.
    pub accel: Accel,
    /// Memory of the guest in MiB.
    pub memory: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Longest wait for a sign.
    pub timeout: Duration,
    /// Regular expressions that must each match a line of the console. Empty: any usual sign of life will do.
    pub expect: Vec<String>,
    /// The file that receives all that the guest prints, as it is. Replaced when it exists.
    pub console: PathBuf,
}

impl BootTest {
    /// A test of one image with a virtio disk and card, BIOS, emulated CPU, 1 GiB and five minutes.
    #[must_use]
    pub fn new(image: Image, console: PathBuf) -> Self {
        Self {
            disks: vec![image],
            bus: Bus::VirtioBlk,
            nic: Nic::Virtio,
            firmware: Firmware::Bios,
            accel: Accel::Tcg,
            memory: 1024,
            cpus: 1,
            timeout: Duration::from_secs(300),
            expect: Vec::new(),
            console,
        }
    }

    /// Boots the guest and watches it until it shows that it lives or does not, ends, or takes too long.
    ///
    /// # Errors
    /// `boot.disks`, `boot.qemu-missing`, `boot.firmware-missing`, `boot.pattern`, and `boot.qemu` when QEMU itself fails. A guest that does
    /// not come up is no error but a [`Verdict`].
    pub fn run(&self, session: &Session) -> Result<BootReport> {
        self.check_disks()?;
        let signs = signs::Signs::new(&self.expect)?;
        let firmware = firmware::find(self.firmware)?;
        let qemu = qemu::Qemu::find()?;
        let arguments = command::arguments(self, firmware.as_ref());
        qemu::watch(session, self, &qemu, &arguments, signs)
    }

    fn check_disks(&self) -> Result<()> {
        let most = self.bus.most_disks();
        if self.disks.len() <= most {
            return Ok(());
        }
        Err(Error::new(Kind::Usage, "boot.disks", format!("{} takes no more than {most} disks", self.bus))
            .found(self.disks.len())
            .hint("virtio-scsi takes 256"))
    }
}

/// An image and the format that it is known to have; QEMU never guesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// A name for each variant, the same in JSON, on the command line and in messages.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name that [`FromStr`] reads.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|known| known.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|known| known.name()).collect();
                    Error::new(Kind::Usage, "boot.choice", "no such choice").expected(names.join(", ")).found(text)
                })
            }
        }
    };
}

impl Bus {
    /// How many disks the test machine has places for.
    #[must_use]
    pub const fn most_disks(self) -> usize {
        match self {
            Self::Ide => 4,
            Self::Pvscsi => 64,
            Self::Sata => 6,
            // Places on the PCI bus, less those of other devices.
            Self::VirtioBlk => 24,
            Self::VirtioScsi => 256,
        }
    }
}

named! {
    /// A format that QEMU reads.
    ImageFormat {
        /// Bytes as they are.
        Raw = "raw",
        /// QEMU's own.
        Qcow2 = "qcow2",
        /// VMware's.
        Vmdk = "vmdk",
        /// Virtual PC's, `.vhd`.
        Vhd = "vhd",
        /// Hyper-V's.
        Vhdx = "vhdx",
        /// VirtualBox's.
        Vdi = "vdi",
    }
}

named! {
    /// What disks are attached to.
    Bus {
        /// IDE, on the machine type `pc`, where every old system finds it.
        Ide = "ide",
        /// VMware's paravirtual SCSI.
        Pvscsi = "pvscsi",
        /// AHCI.
        Sata = "sata",
        /// One PCI device a disk.
        VirtioBlk = "virtio-blk",
        /// One controller for all disks.
        VirtioScsi = "virtio-scsi",
    }
}

named! {
    /// A network card.
    Nic {
        /// Intel's 82540EM.
        E1000 = "e1000",
        /// No card.
        None = "none",
        /// Paravirtual.
        Virtio = "virtio",
        /// VMware's paravirtual card.
        Vmxnet3 = "vmxnet3",
    }
}

named! {
    /// What starts the boot loader.
    Firmware {
        /// SeaBIOS.
        Bios = "bios",
        /// OVMF, without secure boot.
        Uefi = "uefi",
    }
}

named! {
    /// What runs the guest's code.
    Accel {
        /// KVM where it can be had, else emulation.
        Auto = "auto",
        /// KVM or nothing.
        Kvm = "kvm",
        /// Emulation: slower, works anywhere.
        Tcg = "tcg",
    }
}

named! {
    /// How a boot test ended.
    Verdict {
        /// The guest showed every expected sign of life.
        Booted = "booted",
        /// The guest showed a sign that it will not come up.
        Dead = "dead",
        /// The guest powered off or rebooted first.
        Exited = "exited",
        /// Neither within the given time.
        Timeout = "timeout",
    }
}

/// What a boot test saw.
#[derive(Clone, Debug, Serialize)]
pub struct BootReport {
    /// How it ended.
    pub verdict: Verdict,
    /// The signs of life, in the order in which they came.
    pub matched: Vec<Seen>,
    /// The sign that the guest will not come up.
    pub death: Option<Seen>,
    /// How far the guest came: `firmware`, `boot-loader`, `kernel`, `init`.
    pub milestones: Vec<Seen>,
    /// Wall-clock seconds from QEMU's start to the verdict.
    pub seconds: f64,
    /// Where all that the guest printed is kept.
    pub console: PathBuf,
    /// Bytes that the guest printed.
    pub console_bytes: u64,
    /// The version that QEMU reports.
    pub qemu: String,
    /// The whole command line, to run it again by hand.
    pub command: Vec<String>,
    /// What to try when the guest did not boot.
    pub hint: Option<String>,
}

/// A line of the console that means something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// The sign's name; an expected pattern's own text.
    pub sign: String,
    /// The line, safe to print.
    pub line: String,
    /// Seconds since QEMU's start.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert!(Bus::ALL.iter().all(|bus| bus.name().parse::<Bus>().unwrap() == *bus));
        assert_eq!(serde_json::to_value(Verdict::Booted).unwrap(), "booted");
        let error = "floppy".parse::<Bus>().unwrap_err();
        assert_eq!(error.code(), "boot.choice");
        assert!(error.to_string().contains("virtio-scsi"), "{error}");
    }
}
