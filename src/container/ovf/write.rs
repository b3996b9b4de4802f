//! Writes a descriptor, as VMware's tools lay it out: what ESXi, Workstation and others that take OVAs expect.

use std::fmt::Write;

use super::{Bus, Controller, Firmware, Nic, Ovf};

/// A disk of a package that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its file in the package.
    pub href: String,
    /// Length of the file in bytes.
    pub size: u64,
    /// Virtual size in bytes.
    pub capacity: u64,
    /// Bus, position of the controller in [`Ovf::controllers`], and address on it, if the source says it.
    pub attached: Option<(Bus, usize, u32)>,
}

/// What a machine gets of which nothing is known.
const DEFAULT_CPUS: u32 = 2;
const DEFAULT_MEMORY: u64 = 2 << 30;
const DEFAULT_HARDWARE: &str = "vmx-10";
const DEFAULT_NETWORK: &str = "VM Network";

/// `Linux 64-Bit` is 101; `Other` is 1.
const OTHER_OS: u32 = 1;

/// The disk format's name.
const FORMAT: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// The address that SCSI controllers keep for themselves.
const SCSI_ITSELF: u32 = 7;

/// The descriptor of `machine`, whose disks are `disks`.
#[must_use]
pub fn write(machine: &Ovf, disks: &[Written]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = envelope(&mut out, machine, disks);
    out
}

fn envelope(out: &mut String, machine: &Ovf, disks: &[Written]) -> std::fmt::Result {
    out.push_str(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
         xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\" \
         xmlns:vmw=\"http://www.vmware.com/schema/ovf\">\n  <References>\n",
    );
    for (number, disk) in (1..).zip(disks) {
        let href = escape(&disk.href);
        writeln!(out, "    <File ovf:href=\"{href}\" ovf:id=\"file{number}\" ovf:size=\"{}\"/>", disk.size)?;
    }
    out.push_str("  </References>\n  <DiskSection>\n    <Info>The disks</Info>\n");
    for (number, disk) in (1..).zip(disks) {
        writeln!(
            out,
            "    <Disk ovf:capacity=\"{}\" ovf:capacityAllocationUnits=\"byte\" ovf:diskId=\"vmdisk{number}\" \
             ovf:fileRef=\"file{number}\" ovf:format=\"{FORMAT}\"/>",
            disk.capacity
        )?;
    }
    out.push_str("  </DiskSection>\n  <NetworkSection>\n    <Info>The networks</Info>\n");
    let mut networks: Vec<&str> = machine.nics.iter().map(network).collect();
    networks.sort_unstable();
    networks.dedup();
    for network in networks {
        let name = escape(network);
        writeln!(out, "    <Network ovf:name=\"{name}\">\n      <Description>{name}</Description>\n    </Network>")?;
    }
    out.push_str("  </NetworkSection>\n");
    system(out, machine, disks)?;
    out.push_str("</Envelope>\n");
    Ok(())
}

fn network(nic: &Nic) -> &str {
    nic.network.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NETWORK)
}

fn system(out: &mut String, machine: &Ovf, disks: &[Written]) -> std::fmt::Result {
    let name = escape(if machine.name.is_empty() { "machine" } else { &machine.name });
    writeln!(out, "  <VirtualSystem ovf:id=\"{name}\">\n    <Info>A virtual machine</Info>\n    <Name>{name}</Name>")?;
    write!(out, "    <OperatingSystemSection ovf:id=\"{}\"", machine.os_id.unwrap_or(OTHER_OS))?;
    if let Some(kind) = &machine.os_type {
        write!(out, " vmw:osType=\"{}\"", escape(&os_type(kind)))?;
    }
    out.push_str(">\n      <Info>The operating system</Info>\n");
    if let Some(description) = &machine.os_description {
        writeln!(out, "      <Description>{}</Description>", escape(description))?;
    }
    let hardware = machine.hardware.as_deref().filter(|name| name.starts_with("vmx-")).unwrap_or(DEFAULT_HARDWARE);
    writeln!(
        out,
        "    </OperatingSystemSection>\n    <VirtualHardwareSection>\n      <Info>The hardware</Info>\n      <System>\n        \
         <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n        <vssd:InstanceID>0</vssd:InstanceID>\n        \
         <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>\n        \
         <vssd:VirtualSystemType>{}</vssd:VirtualSystemType>\n      </System>",
        escape(hardware)
    )?;
    items(out, machine, disks)?;
    if machine.firmware == Firmware::Uefi {
        config(out, "firmware", "efi")?;
    }
    if machine.secure_boot {
        config(out, "bootOptions.efiSecureBootEnabled", "true")?;
    }
    out.push_str("    </VirtualHardwareSection>\n  </VirtualSystem>\n");
    Ok(())
}

fn config(out: &mut String, key: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "      <vmw:Config ovf:required=\"false\" vmw:key=\"{key}\" vmw:value=\"{value}\"/>")
}

/// A `.vmx` says `debian11-64` for what a descriptor calls `debian11_64Guest`.
fn os_type(kind: &str) -> String {
    if kind.ends_with("Guest") {
        return kind.to_owned();
    }
    match kind.strip_suffix("-64") {
        Some(stem) => format!("{stem}_64Guest"),
        None => format!("{kind}Guest"),
    }
}

/// A hardware item: its elements in the order of the schema, which is that of the alphabet, without those that are `None`.
struct Item<'a> {
    address: Option<String>,
    address_on_parent: Option<u32>,
    units: Option<&'a str>,
    connection: Option<&'a str>,
    host: Option<String>,
    name: String,
    parent: Option<usize>,
    model: Option<String>,
    kind: u32,
    quantity: Option<u64>,
    cores: Option<u32>,
}

impl Item<'_> {
    fn new(kind: u32, name: impl Into<String>) -> Self {
        Self {
            address: None,
            address_on_parent: None,
            units: None,
            connection: None,
            host: None,
            name: name.into(),
            parent: None,
            model: None,
            kind,
            quantity: None,
            cores: None,
        }
    }

    fn write(&self, out: &mut String, id: usize) -> std::fmt::Result {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let text = |text: Option<&str>| text.map(str::to_owned);
        let elements = [
            ("Address", self.address.clone()),
            ("AddressOnParent", number(self.address_on_parent.map(u64::from))),
            ("AllocationUnits", text(self.units)),
            ("AutomaticAllocation", self.connection.map(|_| "true".to_owned())),
            ("Connection", text(self.connection)),
            ("ElementName", Some(self.name.clone())),
            ("HostResource", self.host.clone()),
            ("InstanceID", Some(id.to_string())),
            ("Parent", self.parent.map(|parent| parent.to_string())),
            ("ResourceSubType", self.model.clone()),
            ("ResourceType", Some(self.kind.to_string())),
            ("VirtualQuantity", number(self.quantity)),
        ];
        out.push_str("      <Item>\n");
        for (name, value) in elements.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            writeln!(out, "        <rasd:{name}>{}</rasd:{name}>", escape(value))?;
        }
        if let Some(cores) = self.cores {
            writeln!(out, "        <vmw:CoresPerSocket ovf:required=\"false\">{cores}</vmw:CoresPerSocket>")?;
        }
        out.push_str("      </Item>\n");
        Ok(())
    }
}

fn items(out: &mut String, machine: &Ovf, disks: &[Written]) -> std::fmt::Result {
    let cpus = machine.cpus.unwrap_or(DEFAULT_CPUS);
    let memory = machine.memory.unwrap_or(DEFAULT_MEMORY) >> 20;
    let mut items = vec![
        Item {
            units: Some("hertz * 10^6"),
            quantity: Some(cpus.into()),
            cores: machine.cores_per_socket,
            ..Item::new(3, format!("{cpus} virtual CPU(s)"))
        },
        Item { units: Some("byte * 2^20"), quantity: Some(memory), ..Item::new(4, format!("{memory}MB of memory")) },
    ];
    let (controllers, places) = places(machine, disks);
    // Ids of items are their positions, from 1.
    let first = items.len() + 1;
    let mut numbers = std::collections::BTreeMap::new();
    for controller in &controllers {
        let number = numbers.entry(bus(controller.bus)).or_insert(0_u32);
        items.push(Item {
            address: Some(controller.address.unwrap_or(*number).to_string()),
            model: model(controller),
            ..Item::new(bus(controller.bus).0, format!("{} controller {number}", bus(controller.bus).1))
        });
        *number += 1;
    }
    for (number, (controller, address)) in (1..).zip(places) {
        items.push(Item {
            address_on_parent: Some(address),
            host: Some(format!("ovf:/disk/vmdisk{number}")),
            parent: Some(first + controller),
            ..Item::new(17, format!("Hard Disk {number}"))
        });
    }
    for (number, nic) in (1..).zip(&machine.nics) {
        items.push(Item {
            address: nic.mac.clone(),
            connection: Some(network(nic)),
            model: Some(nic.model.as_deref().map_or("E1000", card).to_owned()),
            ..Item::new(10, format!("Network adapter {number}"))
        });
    }
    (1..).zip(&items).try_for_each(|(id, item)| item.write(out, id))
}

/// The controllers that disks hang on, and for each disk the position of its own among them and its address there.
fn places(machine: &Ovf, disks: &[Written]) -> (Vec<Controller>, Vec<(usize, u32)>) {
    let mut used: Vec<usize> = Vec::new();
    let mut controllers: Vec<Controller> = Vec::new();
    let mut places = Vec::new();
    for disk in disks {
        let known =
            disk.attached.and_then(|(_, number, address)| Some((number, machine.controllers.get(number)?, address)));
        let place = match known {
            Some((number, controller, address)) => {
                let position = used.iter().position(|used| *used == number).unwrap_or_else(|| {
                    used.push(number);
                    controllers.push(controller.clone());
                    controllers.len() - 1
                });
                Some((position, address)).filter(|place| address != u32::MAX && !places.contains(place))
            }
            None => None,
        };
        places.push(place.unwrap_or_else(|| free_place(&mut used, &mut controllers, &places)));
    }
    (controllers, places)
}

/// The next address that is free on a SCSI controller of its own, for disks of which it is not known where they were.
fn free_place(used: &mut Vec<usize>, controllers: &mut Vec<Controller>, taken: &[(usize, u32)]) -> (usize, u32) {
    const OWN: usize = usize::MAX;
    let position = used.iter().position(|used| *used == OWN).unwrap_or_else(|| {
        used.push(OWN);
        let scsi = controllers.iter().filter(|controller| controller.bus == Bus::Scsi).count();
        let address = u32::try_from(scsi).ok();
        let model = Some("lsilogic".to_owned());
        controllers.push(Controller { id: String::new(), bus: Bus::Scsi, model, address });
        controllers.len() - 1
    });
    let free = (0..).find(|address| *address != SCSI_ITSELF && !taken.contains(&(position, *address)));
    (position, free.unwrap_or(0))
}

/// A bus by its number in the CIM schema, and its name.
const fn bus(bus: Bus) -> (u32, &'static str) {
    match bus {
        Bus::Ide => (5, "IDE"),
        Bus::Scsi => (6, "SCSI"),
        Bus::Sata => (20, "SATA"),
        Bus::Nvme => (20, "NVMe"),
    }
}

/// What a controller is, by the names that descriptors use. A `.vmx` has others for some.
fn model(controller: &Controller) -> Option<String> {
    let name = match (controller.bus, controller.model.as_deref()) {
        (Bus::Ide, model) => return model.map(str::to_owned),
        (Bus::Scsi, Some("pvscsi")) => "VirtualSCSI",
        (Bus::Scsi, Some("lsisas1068")) => "lsilogicsas",
        (Bus::Sata, None) => "vmware.sata.ahci",
        (Bus::Nvme, None) => "vmware.nvme.controller",
        (_, Some(model)) => model,
        (Bus::Scsi, None) => "lsilogic",
    };
    Some(name.to_owned())
}

/// What a card is, by the names that descriptors use.
fn card(model: &str) -> &str {
    match model {
        "vmxnet3" => "VmxNet3",
        "e1000" => "E1000",
        "e1000e" => "E1000e",
        "vlance" => "PCNet32",
        other => other,
    }
}

/// Text for an attribute or an element. What XML 1.0 cannot hold is left out.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::vmx;

    fn written(number: u32, attached: Option<(Bus, usize, u32)>) -> Written {
        Written { href: format!("m-disk{number}.vmdk"), size: 1000 + u64::from(number), capacity: 4096, attached }
    }

    fn back(machine: &Ovf, disks: &[Written]) -> Ovf {
        Ovf::parse(write(machine, disks).as_bytes()).unwrap()
    }

    #[test]
    fn a_machine_survives_the_way_there_and_back() {
        let machine = vmx::parse(
            b"config.version=8\ndisplayName=\"web |22<&>\"\nguestOS=debian11-64\nfirmware=efi\nuefi.secureBoot.enabled=TRUE\n\
              memsize=2048\nnumvcpus=4\ncpuid.coresPerSocket=2\nvirtualHW.version=19\nscsi0.present=TRUE\n\
              scsi0.virtualDev=pvscsi\nscsi0:0.present=TRUE\nscsi0:0.fileName=a.vmdk\nsata0.present=TRUE\n\
              sata0:3.present=TRUE\nsata0:3.fileName=b.vmdk\nethernet0.present=TRUE\nethernet0.virtualDev=vmxnet3\n\
              ethernet0.networkName=\"A & B\"\nethernet0.addressType=static\nethernet0.address=00:50:56:00:00:02\n",
        )
        .unwrap();
        let disks = [written(1, machine.disks[0].attached), written(2, machine.disks[1].attached)];
        let found = back(&machine, &disks);
        assert_eq!(found.name, "web \"<&>");
        assert_eq!((found.cpus, found.cores_per_socket, found.memory), (Some(4), Some(2), Some(2 << 30)));
        assert_eq!((found.firmware, found.secure_boot), (Firmware::Uefi, true));
        assert_eq!((found.os_type.as_deref(), found.hardware.as_deref()), (Some("debian11_64Guest"), Some("vmx-19")));
        let places: Vec<_> = found.disks.iter().map(|disk| disk.attached).collect();
        assert_eq!(places, [Some((Bus::Scsi, 0, 0)), Some((Bus::Sata, 1, 3))]);
        assert_eq!(found.controllers[0].model.as_deref(), Some("VirtualSCSI"));
        let files: Vec<_> = found.disks.iter().map(|d| (d.href.as_deref(), d.delivery.size, d.capacity)).collect();
        assert_eq!(files[1], (Some("m-disk2.vmdk"), Some(1002), Some(4096)));
        let nic = &found.nics[0];
        assert_eq!((nic.model.as_deref(), nic.network.as_deref()), (Some("VmxNet3"), Some("A & B")));
        assert_eq!(nic.mac.as_deref(), Some("00:50:56:00:00:02"));
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        // What was read from a descriptor is written the same way.
        let again = back(&found, &disks);
        assert_eq!(again, found);
    }

    #[test]
    fn a_machine_of_which_nothing_is_known_gets_defaults() {
        let disks: Vec<_> = (1..=9).map(|number| written(number, None)).collect();
        let found = back(&Ovf::default(), &disks);
        assert_eq!((found.name.as_str(), found.cpus, found.memory), ("machine", Some(2), Some(2 << 30)));
        let addresses: Vec<_> = found.disks.iter().filter_map(|disk| Some(disk.attached?.2)).collect();
        assert_eq!(addresses, [0, 1, 2, 3, 4, 5, 6, 8, 9]);
        assert_eq!(found.controllers.len(), 1);
    }

    #[test]
    fn two_disks_never_share_a_place() {
        let controller = Controller { id: "c".into(), bus: Bus::Scsi, model: None, address: Some(0) };
        let machine = Ovf { controllers: vec![controller], ..Ovf::default() };
        let same = Some((Bus::Scsi, 0, 0));
        let found = back(&machine, &[written(1, same), written(2, same), written(3, Some((Bus::Ide, 77, 0)))]);
        let places: Vec<_> = found.disks.iter().map(|disk| disk.attached).collect();
        assert_eq!(places, [same, Some((Bus::Scsi, 1, 0)), Some((Bus::Scsi, 1, 1))]);
    }

    #[test]
    fn hostile_names_stay_text() {
        let name = "\u{1}<!DOCTYPE x>\u{1b}[31m\"/><evil a='\u{0}]]>";
        let found = back(&Ovf { name: name.to_owned(), ..Ovf::default() }, &[written(1, None)]);
        assert_eq!(found.name, "<!DOCTYPE x>[31m\"/><evil a=']]>");
    }
}
