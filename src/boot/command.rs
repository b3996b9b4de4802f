//! QEMU's command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::firmware::Uefi;
use super::{Accel, BootTest, Bus, Image, ImageFormat, Nic};

/// What follows the program's name. Nothing that the user did not ask for is there: no default devices, no configuration file.
pub(super) fn arguments(test: &BootTest, uefi: Option<&Uefi>) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.words("-nodefaults -no-user-config -no-reboot -display none -monitor none -vga std");
    // Without graphics SeaBIOS copies its own and the boot loader's screen to the serial port.
    line.option("-machine", if test.bus == Bus::Ide { "pc,graphics=off" } else { "q35,graphics=off" });
    line.words(match test.accel {
        Accel::Auto => "-accel kvm -accel tcg,thread=multi -cpu max",
        Accel::Kvm => "-accel kvm -cpu host",
        Accel::Tcg => "-accel tcg,thread=multi -cpu max",
    });
    line.option("-smp", &test.cpus.to_string());
    line.option("-m", &format!("{}M", test.memory));
    // No signal=off would let a Ctrl-C in the guest's console be QEMU's.
    line.words("-chardev stdio,id=console,signal=off -serial chardev:console");
    line.words("-device virtio-rng-pci");
    if let Some(uefi) = uefi {
        line.path("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=", &uefi.code);
        line.path("-drive", "if=pflash,unit=1,format=raw,snapshot=on,file=", &uefi.variables);
    }
    line.controller(test.bus);
    for (index, image) in test.disks.iter().enumerate() {
        line.disk(test.bus, index, image);
    }
    line.nic(test.nic);
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn option(&mut self, name: &str, value: &str) {
        self.0.extend([name.into(), value.into()]);
    }

    /// An option whose value ends with a path.
    fn path(&mut self, name: &str, before: &str, path: &Path) {
        let mut value = OsString::from(before);
        value.push(escaped(path));
        self.0.extend([name.into(), value]);
    }

    fn controller(&mut self, bus: Bus) {
        match bus {
            Bus::Pvscsi => self.option("-device", "pvscsi,id=scsi"),
            Bus::Sata => self.option("-device", "ich9-ahci,id=sata"),
            Bus::VirtioScsi => self.option("-device", "virtio-scsi-pci,id=scsi"),
            Bus::Ide | Bus::VirtioBlk => {}
        }
    }

    fn disk(&mut self, bus: Bus, index: usize, image: &Image) {
        let driver = driver(image.format);
        // `file.driver` keeps QEMU from reading a protocol out of the name; `snapshot` from writing to the file.
        let before = format!("if=none,id=disk{index},driver={driver},snapshot=on,file.driver=file,file.filename=");
        self.path("-drive", &before, &image.path);
        let device = match bus {
            Bus::Ide => format!("ide-hd,bus=ide.{},unit={}", index / 2, index % 2),
            Bus::Pvscsi | Bus::VirtioScsi => format!("scsi-hd,bus=scsi.0,scsi-id={index}"),
            Bus::Sata => format!("ide-hd,bus=sata.{index}"),
            Bus::VirtioBlk => "virtio-blk-pci".to_owned(),
        };
        self.option("-device", &format!("{device},drive=disk{index},bootindex={index}"));
    }

    fn nic(&mut self, nic: Nic) {
        let model = match nic {
            Nic::None => return self.words("-nic none"),
            Nic::E1000 => "e1000",
            Nic::Virtio => "virtio-net-pci",
            Nic::Vmxnet3 => "vmxnet3",
        };
        self.option("-netdev", "user,id=net,restrict=on");
        // No boot from the network.
        self.option("-device", &format!("{model},netdev=net,romfile="));
    }
}

/// QEMU's name of a format.
const fn driver(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Vhd => "vpc",
        other => other.name(),
    }
}

/// A path in the value of an option, where a comma is doubled.
fn escaped(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.split(|&byte| byte == b',').collect::<Vec<_>>().join(OsStr::new(",,").as_bytes());
    OsString::from_vec(doubled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Firmware;

    fn test(bus: Bus, nic: Nic) -> BootTest {
        let image = Image { path: "/images/a,b.qcow2".into(), format: ImageFormat::Qcow2 };
        BootTest { bus, nic, ..BootTest::new(image, "console.log".into()) }
    }

    fn line(test: &BootTest, uefi: Option<&Uefi>) -> String {
        let words: Vec<_> = arguments(test, uefi).iter().map(|word| word.to_str().unwrap().to_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn the_whole_line_of_a_virtio_guest() {
        assert_eq!(
            line(&test(Bus::VirtioBlk, Nic::Virtio), None),
            "-nodefaults -no-user-config -no-reboot -display none -monitor none -vga std -machine q35,graphics=off \
             -accel tcg,thread=multi -cpu max -smp 1 -m 1024M -chardev stdio,id=console,signal=off \
             -serial chardev:console -device virtio-rng-pci \
             -drive if=none,id=disk0,driver=qcow2,snapshot=on,file.driver=file,file.filename=/images/a,,b.qcow2 \
             -device virtio-blk-pci,drive=disk0,bootindex=0 -netdev user,id=net,restrict=on \
             -device virtio-net-pci,netdev=net,romfile="
        );
    }

    #[test]
    fn every_bus_and_card_has_its_devices() {
        for (bus, device) in [
            (Bus::Ide, "-device ide-hd,bus=ide.0,unit=0,drive=disk0"),
            (Bus::Pvscsi, "-device pvscsi,id=scsi -drive"),
            (Bus::Sata, "-device ide-hd,bus=sata.0,drive=disk0"),
            (Bus::VirtioScsi, "-device scsi-hd,bus=scsi.0,scsi-id=0,drive=disk0"),
        ] {
            let line = line(&test(bus, Nic::Vmxnet3), None);
            assert!(line.contains(device), "{bus}: {line}");
            assert!(line.ends_with("-device vmxnet3,netdev=net,romfile="));
            assert_eq!(line.contains("-machine pc,"), bus == Bus::Ide);
        }
        assert!(line(&test(Bus::Sata, Nic::None), None).ends_with("-nic none"));
    }

    #[test]
    fn several_disks_boot_from_the_first() {
        let mut test = test(Bus::Ide, Nic::None);
        for format in [ImageFormat::Vhd, ImageFormat::Raw] {
            test.disks.push(Image { path: "nbd:localhost".into(), format });
        }
        let line = line(&test, None);
        assert!(line.contains("ide-hd,bus=ide.1,unit=0,drive=disk2,bootindex=2"), "{line}");
        assert!(line.contains("driver=vpc,snapshot=on,file.driver=file,file.filename=nbd:localhost"), "{line}");
        assert_eq!(line.matches("snapshot=on").count(), 3);
    }

    #[test]
    fn a_bus_has_places_for_so_many_disks() {
        for bus in Bus::ALL {
            let with = |count: usize| {
                let mut test = test(*bus, Nic::None);
                test.disks = vec![test.disks[0].clone(); count];
                test.check_disks().map_err(|error| error.code())
            };
            let most = bus.most_disks();
            assert!(with(most - 1).is_ok() && with(most).is_ok(), "{bus}");
            assert_eq!(with(most + 1), Err("boot.disks"), "{bus}");
        }
    }

    #[test]
    fn uefi_never_writes_the_template() {
        let uefi = Uefi { code: "/f/code.fd".into(), variables: "/f/vars.fd".into() };
        let test = BootTest { firmware: Firmware::Uefi, accel: Accel::Auto, ..test(Bus::Sata, Nic::None) };
        let line = line(&test, Some(&uefi));
        assert!(line.contains("-drive if=pflash,unit=0,format=raw,readonly=on,file=/f/code.fd"));
        assert!(line.contains("-drive if=pflash,unit=1,format=raw,snapshot=on,file=/f/vars.fd"));
        assert!(line.contains("-accel kvm -accel tcg"));
    }
}
