//! Real boots, by QEMU's own command line and not by ours: an oracle must not share the code it judges.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Emulation on a busy machine takes a minute or two; a guest that says nothing for so long will not.
const PATIENCE: Duration = Duration::from_secs(600);

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

    /// Boots it until it is up, has given up, or nothing more can be expected.
    pub(crate) fn boot(&self) -> Boot {
        self.boot_with("snapshot=on")
    }

    /// The same, but what the guest writes goes to the disk.
    pub(crate) fn boot_in_place(&self) -> Boot {
        self.boot_with("snapshot=off")
    }

    fn boot_with(&self, writes: &str) -> Boot {
        let start = Instant::now();
        let mut qemu =
            self.command(writes).spawn().expect("qemu-system-x86_64, which scripts/install-deps.sh installs");
        let mut serial = qemu.stdout.take().expect("a serial port");
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = serial.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut console = Vec::new();
        let outcome = loop {
            match receiver.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(bytes) => console.extend(bytes),
                Err(_) => break Outcome::Silent,
            }
            if let Some(outcome) = Outcome::find(&String::from_utf8_lossy(&console)) {
                break outcome;
            }
        };
        drop(receiver);
        let _ = qemu.kill();
        let _ = qemu.wait();
        let _ = reader.join();
        Boot { outcome, console: String::from_utf8_lossy(&console).into_owned() }
    }

    fn command(&self, writes: &str) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        // Always emulation: it works everywhere and is the same everywhere. `-smp 1` is its fastest.
        command.args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "1024",
        ]);
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
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }
}

/// How a boot ended.
pub(crate) struct Boot {
    outcome: Outcome,
    console: String,
}

enum Outcome {
    /// The marker line's `key=[value]` pairs.
    Up(BTreeMap<String, String>),
    /// What the guest said when it gave up.
    Dead(&'static str),
    /// It said nothing more.
    Silent,
}

impl Outcome {
    fn find(console: &str) -> Option<Self> {
        const DEATHS: [&str; 8] = [
            "Gave up waiting for root",
            "Kernel panic",
            "You are in emergency mode",
            "Entering emergency mode",
            // dracut without systemd.
            "Could not boot.",
            "No bootable device",
            "Shell> ",
            // Newer images wait for a disk without end.
            ".device/start running (2min",
        ];
        if let Some(line) =
            console.split_inclusive('\n').find(|line| line.contains("BOOTMARK ") && line.ends_with('\n'))
        {
            return Some(Self::Up(parse_mark(line)));
        }
        DEATHS.into_iter().find(|death| console.contains(death)).map(Self::Dead)
    }
}

/// A value may itself have brackets, as that of a btrfs root.
fn parse_mark(line: &str) -> BTreeMap<String, String> {
    let parts: Vec<&str> = line.split("=[").collect();
    let pair = |pair: &[&str]| {
        let name = pair[0].rsplit(' ').next().unwrap_or_default();
        let (value, _) = pair[1].rsplit_once(']').unwrap_or((pair[1], ""));
        (name.to_owned(), value.to_owned())
    };
    parts.windows(2).map(pair).collect()
}

impl Boot {
    /// It came up; what it says of itself.
    pub(crate) fn up(self) -> BTreeMap<String, String> {
        match self.outcome {
            Outcome::Up(facts) => facts,
            Outcome::Dead(death) => panic!("the guest died ({death}):\n{}", tail(&self.console)),
            Outcome::Silent => panic!("the guest did not come up:\n{}", tail(&self.console)),
        }
    }

    /// It gave up; what it said.
    pub(crate) fn dead(self) -> &'static str {
        match self.outcome {
            Outcome::Dead(death) => death,
            Outcome::Up(facts) => panic!("the guest came up: {facts:?}"),
            Outcome::Silent => panic!("the guest neither came up nor gave up:\n{}", tail(&self.console)),
        }
    }
}

fn tail(console: &str) -> &str {
    let start = console.char_indices().rev().nth(3000).map_or(0, |(index, _)| index);
    &console[start..]
}
