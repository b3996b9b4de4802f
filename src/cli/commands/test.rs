//! `test`: boots an image and waits for a sign of life.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Context;
use crate::boot::{self, Accel, BootReport, BootTest, Firmware, Image, ImageFormat, Verdict};
use crate::chain::open;
use crate::cli::args::{Bus, Nic, TestArgs};
use crate::cli::signals;
use crate::error::{Error, Kind, Result};

/// Bytes in the MiB that QEMU counts memory in.
const MIB: u64 = 1 << 20;

pub(super) fn run(args: &TestArgs, context: &Context) -> Result<()> {
    signals::cancel_on_signal(&context.session, || ())?;
    let image = |path: &PathBuf| Ok(Image { path: path.clone(), format: format(path, context)? });
    let disks: Vec<Image> = args.images.iter().map(image).collect::<Result<_>>()?;
    let first =
        disks.first().cloned().ok_or_else(|| Error::new(Kind::Usage, "boot.disks", "there is no image to boot"))?;
    let console = args.console.clone().unwrap_or_else(|| default_console(&first.path));
    let test = BootTest {
        bus: bus(args.bus),
        nic: nic(args.nic),
        firmware: if args.uefi { Firmware::Uefi } else { Firmware::Bios },
        accel: if args.kvm { Accel::Kvm } else { Accel::Tcg },
        memory: u32::try_from(args.guest_memory.0 / MIB).unwrap_or(u32::MAX),
        cpus: args.cpus,
        timeout: Duration::from_secs(args.timeout),
        expect: args.expect.clone(),
        disks,
        ..BootTest::new(first, console)
    };
    let report = test.run(&context.session)?;
    let json = serde_json::to_value(&report)
        .map_err(|e| Error::failed("output.json", "the report cannot be shown as JSON").because(e))?;
    context.output.result(&json, &text(&report))?;
    if report.verdict == Verdict::Booted { Ok(()) } else { Err(not_booted(&report)) }
}

/// The image's format, found by our own reader, which also refuses references that lead elsewhere: QEMU would follow them.
fn format(image: &Path, context: &Context) -> Result<ImageFormat> {
    let options = context.global.open_options();
    let opened = open(image, &options, &context.session)?;
    let format = opened.disks.first().and_then(|disk| disk.image.inner().layers().next().map(|layer| layer.format()));
    match format {
        Some("qcow2") => Ok(ImageFormat::Qcow2),
        Some("raw") => Ok(ImageFormat::Raw),
        Some("vmdk") => Ok(ImageFormat::Vmdk),
        other => Err(Error::unsupported("test.format", "only qcow2, raw and vmdk images can be booted")
            .path(image)
            .found(other.unwrap_or("nothing"))
            .hint("convert or migrate it first")),
    }
}

fn default_console(image: &Path) -> PathBuf {
    let mut name = image.to_owned().into_os_string();
    name.push(".console.log");
    PathBuf::from(name)
}

fn bus(bus: Bus) -> boot::Bus {
    match bus {
        Bus::Ide => boot::Bus::Ide,
        Bus::Pvscsi => boot::Bus::Pvscsi,
        Bus::Sata => boot::Bus::Sata,
        Bus::VirtioBlk => boot::Bus::VirtioBlk,
        Bus::VirtioScsi => boot::Bus::VirtioScsi,
    }
}

fn nic(nic: Nic) -> boot::Nic {
    match nic {
        Nic::E1000 => boot::Nic::E1000,
        Nic::None => boot::Nic::None,
        Nic::Virtio => boot::Nic::Virtio,
        Nic::Vmxnet3 => boot::Nic::Vmxnet3,
    }
}

fn text(report: &BootReport) -> String {
    let mut text = format!("{} after {:.1} s\n", report.verdict, report.seconds);
    for seen in report.milestones.iter().chain(&report.matched).chain(&report.death) {
        text.push_str(&format!("  {:>6.1} s  {}: {}\n", seen.seconds, seen.sign, seen.line));
    }
    text.push_str(&format!("  console: {}\n", report.console.display()));
    text
}

fn not_booted(report: &BootReport) -> Error {
    let what = match report.verdict {
        Verdict::Dead => "the guest does not come up",
        Verdict::Exited => "the guest ended before it showed a sign of life",
        _ => "the guest showed no sign of life in time",
    };
    let mut error = Error::failed("test.no-boot", what).at(report.console.display());
    if let Some(death) = &report.death {
        error = error.found(&death.line);
    }
    error.hint(report.hint.as_deref().unwrap_or("read the console log"))
}
