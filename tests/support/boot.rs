//! Real boots, by QEMU's own command line and not by ours: an oracle must not share the code it judges.

use std::path::Path;
use std::process::{Command, Stdio};

mod live;

pub(crate) use live::{Boot, Live};

/// How the disk hangs on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    /// VMware's paravirtual SCSI.
    Pvscsi,
    /// AHCI, which every firmware can boot from.
    Sata,
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
}

/// The network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nic {
    /// virtio-net.
    Virtio,
    /// VMware's, in the slot in which the guest calls it ens192.
    Vmxnet3,
}

/// A virtual machine to be.
pub(crate) struct Machine<'a> {
    /// A path or what QEMU takes for one; the first one boots.
    disks: Vec<&'a Path>,
    format: &'a str,
    bus: Bus,
    nic: Nic,
    uefi: bool,
}

impl<'a> Machine<'a> {
    /// A machine with BIOS, one disk of this format on a bus, and virtio-net.
    pub(crate) fn new(disk: &'a Path, format: &'a str, bus: Bus) -> Self {
        Self { disks: vec![disk], format, bus, nic: Nic::Virtio, uefi: false }
    }

    /// Another disk of the same format on the same bus.
    pub(crate) fn with(mut self, disk: &'a Path) -> Self {
        self.disks.push(disk);
        self
    }

    /// Another network card.
    pub(crate) fn nic(mut self, nic: Nic) -> Self {
        self.nic = nic;
        self
    }

    /// With UEFI in place of BIOS, and no boot entries.
    pub(crate) fn uefi(mut self, uefi: bool) -> Self {
        self.uefi = uefi;
        self
    }

    /// Boots it until it is up, has given up, or nothing more can be expected. Nothing is written to the disks.
    pub(crate) fn boot(&self) -> Boot {
        self.try_out().ends()
    }

    /// The same, but what the guest writes goes to the disk.
    pub(crate) fn boot_in_place(&self) -> Boot {
        self.start().ends()
    }

    /// Switches it on. Nothing is written to the disks.
    pub(crate) fn try_out(&self) -> Live {
        self.live("snapshot=on")
    }

    /// Switches it on; what the guest writes goes to the disk.
    pub(crate) fn start(&self) -> Live {
        self.live("snapshot=off")
    }

    fn live(&self, writes: &str) -> Live {
        Live::over(self.command(writes).spawn().expect("qemu-system-x86_64, which scripts/install-deps.sh installs"))
    }

    fn command(&self, writes: &str) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        // Always emulation: it works everywhere and is the same everywhere. `-smp 1` is its fastest.
        command.args(["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "1024"]);
        if std::env::var_os("HYPER2KVM_BUSY").is_some() {
            // Time goes with the instructions: a guest is slower, but none of its timeouts ends sooner because others compute.
            command.args(["-accel", "tcg,tb-size=512", "-icount", "shift=2"]);
        } else {
            command.args(["-accel", "tcg,thread=multi,tb-size=512"]);
        }
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        if self.uefi {
            // Its variables are not kept: what is said in them is what a new machine would not have.
            command.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            command.args(["-drive", "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd"]);
        }
        match self.bus {
            Bus::Pvscsi => command.args(["-device", "pvscsi"]),
            Bus::Sata | Bus::VirtioBlk => &mut command,
            Bus::VirtioScsi => command.args(["-device", "virtio-scsi-pci"]),
        };
        let device = match self.bus {
            Bus::Sata => "ide-hd",
            Bus::VirtioBlk => "virtio-blk-pci",
            Bus::Pvscsi | Bus::VirtioScsi => "scsi-hd",
        };
        for (number, disk) in self.disks.iter().enumerate() {
            let (file, format) = (disk.display(), self.format);
            let drive = format!("file={file},format={format},if=none,id=disk{number},{writes},cache=unsafe");
            command.args(["-drive", &drive]);
            command.args(["-device", &format!("{device},drive=disk{number},bootindex={}", number + 1)]);
        }
        command.args(["-netdev", "user,id=net"]).args(match self.nic {
            Nic::Virtio => vec!["-device", "virtio-net-pci,netdev=net,romfile="],
            Nic::Vmxnet3 => vec![
                "-global",
                "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
                "-device",
                "pcie-root-port,id=port192,chassis=1,slot=192",
                "-device",
                "vmxnet3,bus=port192,netdev=net,romfile=",
            ],
        });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }
}
