//! Writes the XML of a libvirt domain (`formatdomain`): what `virsh define` takes.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::names::{self, Mac, OsId};
use crate::error::{Error, Kind, Result, escape};
use crate::xml::{self, Writer};

/// A machine to be defined. Nothing in it is trusted: names and networks may come from a source that is hostile.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The name on the source. The domain gets a plain one made of it; where that differs, the source's becomes the title.
    pub name: String,
    /// The domain's UUID; libvirt makes one when there is none.
    pub uuid: Option<Uuid>,
    /// Memory in bytes, rounded up to KiB.
    pub memory: u64,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// What runs the guest's code.
    pub hypervisor: Hypervisor,
    /// The machine type.
    pub chipset: Chipset,
    /// What starts the boot loader.
    pub firmware: Firmware,
    /// What the guest takes the hardware clock for.
    pub clock: Clock,
    /// The graphics card.
    pub video: Video,
    /// The operating system, where known.
    pub os: Option<OsId>,
    /// Disks in order.
    pub disks: Vec<Disk>,
    /// Network cards in order.
    pub nics: Vec<Nic>,
}

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hypervisor {
    /// KVM, with the host's CPU model. Guests built for x86-64-v2 or later (RHEL 9 and its kin) do not start on libvirt's
    /// default model, which lacks SSE4.2.
    #[default]
    Kvm,
    /// QEMU's emulation, with all that it can emulate.
    Tcg,
}

/// The machine type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chipset {
    /// `pc`, with IDE, for guests that know no AHCI. It cannot do secure boot.
    Pc,
    /// `q35`.
    #[default]
    Q35,
}

/// What starts the boot loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF; libvirt finds it.
    Uefi {
        /// With the vendors' keys enrolled and enforced.
        secure_boot: bool,
    },
}

/// What a guest takes the hardware clock for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// Local time, as Windows does.
    LocalTime,
    /// UTC.
    #[default]
    Utc,
}

/// The graphics card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Video {
    /// Every guest has a driver for it.
    #[default]
    Vga,
    /// virtio-gpu with a VGA mode.
    Virtio,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image: absolute, UTF-8, without control characters.
    pub path: PathBuf,
    /// QEMU's name of its format.
    pub format: &'static str,
    /// What it is attached to.
    pub bus: DiskBus,
    /// Its place in the boot order, from 1.
    pub boot: Option<u32>,
}

/// What a disk is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBus {
    /// IDE, for guests that know no AHCI either; it comes with the machine type `pc`.
    Ide,
    /// AHCI, for guests without virtio drivers.
    Sata,
    /// One PCI device a disk: `vda`.
    VirtioBlk,
    /// One controller for all disks: `sda`.
    VirtioScsi,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The address it keeps; libvirt makes one when there is none.
    pub mac: Option<Mac>,
    /// The model.
    pub model: NicModel,
    /// What it is plugged into.
    pub source: NicSource,
    /// What it was on the source, kept as metadata of the domain.
    pub was: Option<SourceNic>,
}

/// A model of network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicModel {
    /// Intel's 82540EM, for older guests without virtio drivers.
    E1000,
    /// Intel's 82574L, for guests without virtio drivers.
    E1000e,
    /// Realtek's, for the oldest guests.
    Rtl8139,
    /// Paravirtual.
    Virtio,
}

/// What a network card is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicSource {
    /// A bridge of the host.
    Bridge(String),
    /// A network that libvirt manages; it comes with `default`.
    Network(String),
}

/// A network card of the source machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNic {
    /// `VmxNet3`.
    pub model: String,
    /// The name of the network or port group.
    pub network: String,
}

/// The namespace of our metadata.
const NAMESPACE: &str = "urn:hyper2kvm:domain:1";

/// The namespace of libosinfo's metadata.
const LIBOSINFO: &str = "http://libosinfo.org/xmlns/libvirt/domain/1.0";

impl Domain {
    /// The plain name under which libvirt knows the domain.
    #[must_use]
    pub fn plain_name(&self) -> String {
        names::domain_name(&self.name)
    }

    /// The XML.
    ///
    /// # Errors
    /// `libvirt.path` for an image whose path XML or libvirt cannot hold; `libvirt.secure-boot` for secure boot on `pc`.
    pub fn to_xml(&self) -> Result<String> {
        let secure = self.firmware == Firmware::Uefi { secure_boot: true };
        if secure && self.chipset == Chipset::Pc {
            return Err(Error::new(Kind::Usage, "libvirt.secure-boot", "secure boot needs the machine type q35"));
        }
        let mut xml = Writer::default();
        xml.open("domain", &[("type", if self.hypervisor == Hypervisor::Kvm { "kvm" } else { "qemu" })]);
        self.identity(&mut xml);
        xml.text("memory", &[("unit", "KiB")], &self.memory.div_ceil(1024).max(1).to_string());
        xml.text("vcpu", &[], &self.vcpus.max(1).to_string());
        self.os(&mut xml);
        self.features(&mut xml, secure);
        match self.hypervisor {
            Hypervisor::Kvm => xml.leaf("cpu", &[("mode", "host-model")]),
            Hypervisor::Tcg => xml.leaf("cpu", &[("mode", "maximum")]),
        }
        self.clock(&mut xml);
        xml.text("on_poweroff", &[], "destroy");
        xml.text("on_reboot", &[], "restart");
        xml.text("on_crash", &[], "destroy");
        self.devices(&mut xml)?;
        Ok(xml.finish())
    }

    fn identity(&self, xml: &mut Writer) {
        let name = self.plain_name();
        xml.text("name", &[], &name);
        if let Some(uuid) = self.uuid {
            xml.text("uuid", &[], &uuid.hyphenated().to_string());
        }
        if name != self.name && !self.name.is_empty() {
            xml.text("title", &[], &escape(&self.name));
        }
        let os = self.os.as_ref().and_then(OsId::libosinfo);
        let nics: Vec<_> = self.nics.iter().filter_map(|nic| Some((nic, nic.was.as_ref()?))).collect();
        if os.is_none() && nics.is_empty() {
            return;
        }
        xml.open("metadata", &[]);
        if let Some(os) = os {
            xml.open("libosinfo:libosinfo", &[("xmlns:libosinfo", LIBOSINFO)]);
            xml.leaf("libosinfo:os", &[("id", &os)]);
            xml.close();
        }
        if !nics.is_empty() {
            xml.open("hyper2kvm:source", &[("xmlns:hyper2kvm", NAMESPACE)]);
            for (nic, was) in nics {
                let mac = nic.mac.map(|mac| mac.to_string()).unwrap_or_default();
                let (model, network) = (escape(&was.model), escape(&was.network));
                xml.leaf("hyper2kvm:nic", &[("mac", &mac), ("model", &model), ("network", &network)]);
            }
            xml.close();
        }
        xml.close();
    }

    fn os(&self, xml: &mut Writer) {
        let machine = match self.chipset {
            Chipset::Pc => "pc",
            Chipset::Q35 => "q35",
        };
        let attributes: &[_] = match self.firmware {
            Firmware::Bios => &[],
            Firmware::Uefi { .. } => &[("firmware", "efi")],
        };
        xml.open("os", attributes);
        xml.text("type", &[("arch", "x86_64"), ("machine", machine)], "hvm");
        if let Firmware::Uefi { secure_boot } = self.firmware {
            let enabled = if secure_boot { "yes" } else { "no" };
            xml.open("firmware", &[]);
            xml.leaf("feature", &[("enabled", enabled), ("name", "enrolled-keys")]);
            xml.leaf("feature", &[("enabled", enabled), ("name", "secure-boot")]);
            xml.close();
        }
        xml.close();
    }

    fn features(&self, xml: &mut Writer, secure: bool) {
        xml.open("features", &[]);
        xml.leaf("acpi", &[]);
        xml.leaf("apic", &[]);
        if secure {
            xml.leaf("smm", &[("state", "on")]);
        }
        xml.close();
    }

    fn clock(&self, xml: &mut Writer) {
        let offset = match self.clock {
            Clock::LocalTime => "localtime",
            Clock::Utc => "utc",
        };
        xml.open("clock", &[("offset", offset)]);
        xml.leaf("timer", &[("name", "rtc"), ("tickpolicy", "catchup")]);
        xml.leaf("timer", &[("name", "pit"), ("tickpolicy", "delay")]);
        xml.leaf("timer", &[("name", "hpet"), ("present", "no")]);
        xml.close();
    }

    fn devices(&self, xml: &mut Writer) -> Result<()> {
        xml.open("devices", &[]);
        self.disks(xml)?;
        for nic in &self.nics {
            nic.write(xml);
        }
        xml.open("serial", &[("type", "pty")]);
        xml.leaf("target", &[("type", "isa-serial"), ("port", "0")]);
        xml.close();
        xml.open("console", &[("type", "pty")]);
        xml.leaf("target", &[("type", "serial"), ("port", "0")]);
        xml.close();
        xml.open("channel", &[("type", "unix")]);
        xml.leaf("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")]);
        xml.close();
        xml.leaf("input", &[("type", "tablet"), ("bus", "usb")]);
        xml.leaf("graphics", &[("type", "vnc"), ("port", "-1"), ("autoport", "yes"), ("listen", "127.0.0.1")]);
        xml.open("video", &[]);
        xml.leaf("model", &[("type", if self.video == Video::Vga { "vga" } else { "virtio" })]);
        xml.close();
        xml.leaf("memballoon", &[("model", "virtio")]);
        xml.open("rng", &[("model", "virtio")]);
        xml.text("backend", &[("model", "random")], "/dev/urandom");
        xml.close();
        xml.close();
        Ok(())
    }

    fn disks(&self, xml: &mut Writer) -> Result<()> {
        let (mut vd, mut sd, mut hd, mut scsi) = (0, 0, 0, 0);
        for disk in &self.disks {
            let (prefix, count) = match disk.bus {
                DiskBus::Ide => ("hd", &mut hd),
                DiskBus::VirtioBlk => ("vd", &mut vd),
                DiskBus::Sata | DiskBus::VirtioScsi => ("sd", &mut sd),
            };
            disk.write(xml, &names::target(prefix, *count), scsi)?;
            *count += 1;
            scsi += u32::from(disk.bus == DiskBus::VirtioScsi);
        }
        if scsi > 0 {
            xml.leaf("controller", &[("type", "scsi"), ("index", "0"), ("model", "virtio-scsi")]);
        }
        Ok(())
    }
}

impl Disk {
    /// `scsi` is its target on the SCSI controller, if it is attached to that.
    fn write(&self, xml: &mut Writer, target: &str, scsi: u32) -> Result<()> {
        let bus = match self.bus {
            DiskBus::Ide => "ide",
            DiskBus::Sata => "sata",
            DiskBus::VirtioBlk => "virtio",
            DiskBus::VirtioScsi => "scsi",
        };
        xml.open("disk", &[("type", "file"), ("device", "disk")]);
        xml.leaf("driver", &[("name", "qemu"), ("type", self.format), ("discard", "unmap")]);
        xml.leaf("source", &[("file", path_text(&self.path)?)]);
        xml.leaf("target", &[("dev", target), ("bus", bus)]);
        if let Some(order) = self.boot {
            xml.leaf("boot", &[("order", &order.max(1).to_string())]);
        }
        if self.bus == DiskBus::VirtioScsi {
            // libvirt would add a controller for every seventh disk.
            let target = scsi.to_string();
            let attributes =
                [("type", "drive"), ("controller", "0"), ("bus", "0"), ("target", &*target), ("unit", "0")];
            xml.leaf("address", &attributes);
        }
        xml.close();
        Ok(())
    }
}

/// A path as libvirt can read it back.
fn path_text(path: &Path) -> Result<&str> {
    let refused = |what| {
        Err(Error::new(Kind::Usage, "libvirt.path", what).path(path).hint("choose another name or output directory"))
    };
    let Some(text) = path.to_str() else { return refused("the image's path is not UTF-8, which XML cannot hold") };
    if !path.is_absolute() {
        return refused("libvirt needs the image's absolute path");
    }
    if text.chars().any(|c| c.is_control() || !xml::is_allowed(c)) {
        return refused("the image's path has control characters, which XML cannot hold");
    }
    Ok(text)
}

impl Nic {
    fn write(&self, xml: &mut Writer) {
        let (kind, attribute, name) = match &self.source {
            NicSource::Bridge(name) => ("bridge", "bridge", name),
            NicSource::Network(name) => ("network", "network", name),
        };
        xml.open("interface", &[("type", kind)]);
        if let Some(mac) = self.mac {
            xml.leaf("mac", &[("address", &mac.to_string())]);
        }
        xml.leaf("source", &[(attribute, name)]);
        let model = match self.model {
            NicModel::E1000 => "e1000",
            NicModel::E1000e => "e1000e",
            NicModel::Rtl8139 => "rtl8139",
            NicModel::Virtio => "virtio",
        };
        xml.leaf("model", &[("type", model)]);
        xml.close();
    }
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;

    fn disk(name: &str, bus: DiskBus, boot: Option<u32>) -> Disk {
        Disk { path: Path::new("/images").join(name), format: "qcow2", bus, boot }
    }

    fn domain() -> Domain {
        Domain {
            name: "web01".to_owned(),
            uuid: Some(Uuid::from_bytes([0x11; 16])),
            memory: (2 << 30) + 1,
            vcpus: 2,
            hypervisor: Hypervisor::Kvm,
            chipset: Chipset::Q35,
            firmware: Firmware::Bios,
            clock: Clock::Utc,
            video: Video::Vga,
            os: Some(OsId { id: "debian".to_owned(), version: "12".to_owned() }),
            disks: vec![disk("web01.qcow2", DiskBus::VirtioBlk, Some(1))],
            nics: vec![Nic {
                mac: Mac::parse("00:50:56:01:02:03"),
                model: NicModel::Virtio,
                source: NicSource::Network("default".to_owned()),
                was: Some(SourceNic { model: "VmxNet3".to_owned(), network: "VM Network".to_owned() }),
            }],
        }
    }

    #[test]
    fn the_whole_of_a_small_machine() {
        assert_eq!(domain().to_xml().unwrap(), GOLDEN);
    }

    const GOLDEN: &str = "\
<domain type='kvm'>
  <name>web01</name>
  <uuid>11111111-1111-1111-1111-111111111111</uuid>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
      <libosinfo:os id='http://debian.org/debian/12'/>
    </libosinfo:libosinfo>
    <hyper2kvm:source xmlns:hyper2kvm='urn:hyper2kvm:domain:1'>
      <hyper2kvm:nic mac='00:50:56:01:02:03' model='VmxNet3' network='VM Network'/>
    </hyper2kvm:source>
  </metadata>
  <memory unit='KiB'>2097153</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-model'/>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='pit' tickpolicy='delay'/>
    <timer name='hpet' present='no'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/images/web01.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <interface type='network'>
      <mac address='00:50:56:01:02:03'/>
      <source network='default'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <target type='isa-serial' port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <input type='tablet' bus='usb'/>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
    <video>
      <model type='vga'/>
    </video>
    <memballoon model='virtio'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
";

    #[test]
    fn disks_are_named_by_bus_in_order() {
        let mut domain = domain();
        domain.disks = vec![
            disk("a", DiskBus::VirtioScsi, Some(1)),
            disk("b", DiskBus::VirtioBlk, None),
            disk("c", DiskBus::Sata, Some(2)),
            disk("d", DiskBus::VirtioScsi, None),
        ];
        let xml = domain.to_xml().unwrap();
        let document = Document::parse(&xml).unwrap();
        let targets: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("target") && node.parent().unwrap().has_tag_name("disk"))
            .map(|node| (node.attribute("dev").unwrap(), node.attribute("bus").unwrap()))
            .collect();
        assert_eq!(targets, [("sda", "scsi"), ("vda", "virtio"), ("sdb", "sata"), ("sdc", "scsi")]);
        assert_eq!(xml.matches("model='virtio-scsi'").count(), 1);
        let addresses: Vec<_> = document.descendants().filter_map(|node| node.attribute("target")).collect();
        assert_eq!(addresses, ["0", "1"]);
    }

    #[test]
    fn nothing_hostile_gets_out_of_its_place() {
        let evil = "a</name><devices><x y='z'/>\u{1}\n\"&]]>\u{202e}";
        let mut domain = domain();
        domain.name = evil.to_owned();
        domain.os = Some(OsId { id: "debian".to_owned(), version: evil.to_owned() });
        domain.nics[0].source = NicSource::Bridge(evil.to_owned());
        domain.nics[0].was = Some(SourceNic { model: evil.to_owned(), network: evil.to_owned() });
        domain.disks[0].path = "/images/<a>&'b\".qcow2".into();
        let xml = domain.to_xml().unwrap();
        let document = Document::parse(&xml).unwrap();
        let find = |name| document.descendants().find(|node| node.tag_name().name() == name).unwrap();
        assert_eq!(find("name").text().unwrap(), domain.plain_name());
        assert!(find("title").text().unwrap().starts_with("a</name><devices><x y='z'/>\\u{1}"));
        assert_eq!(find("nic").attribute("network").unwrap(), escape(evil));
        let disk = document.descendants().find(|node| node.has_tag_name("disk")).unwrap();
        assert_eq!(disk.descendants().find_map(|node| node.attribute("file")).unwrap(), "/images/<a>&'b\".qcow2");
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("devices")).count(), 1);
        assert!(!xml.contains("libosinfo"), "an unknown version is left out");
    }

    #[test]
    fn paths_that_xml_cannot_hold_are_refused() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        for path in
            [Path::new("relative"), Path::new("/a\nb"), Path::new("/a\u{ffff}"), Path::new(OsStr::from_bytes(b"/\xff"))]
        {
            let mut domain = domain();
            domain.disks[0].path = path.to_owned();
            assert_eq!(domain.to_xml().unwrap_err().code(), "libvirt.path", "{}", path.display());
        }
    }

    #[test]
    fn secure_boot_needs_q35() {
        let firmware = Firmware::Uefi { secure_boot: true };
        let xml = Domain { firmware, ..domain() }.to_xml().unwrap();
        assert!(xml.contains("<smm state='on'/>") && xml.contains("enabled='yes' name='secure-boot'"));
        let error = Domain { firmware, chipset: Chipset::Pc, ..domain() }.to_xml().unwrap_err();
        assert_eq!(error.code(), "libvirt.secure-boot");
    }
}
