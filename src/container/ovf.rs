//! The OVF descriptor (DMTF DSP0243 2.1.1): which machine the disks belong to.
//!
//! Elements and attributes are found by their local names, since writers differ in prefixes, versions and order.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use roxmltree::{Document, Node, ParsingOptions};

use crate::error::{Error, Result};
use crate::limits;

mod units;
#[allow(clippy::arithmetic_side_effects, reason = "counts what the program itself made")]
mod write;

pub use units::bytes_per_unit;
pub use write::{Written, write};

/// The machine that a descriptor describes. What it does not say is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ovf {
    /// `Name`, or the id of the `VirtualSystem`.
    pub name: String,
    /// CIM number of the guest's operating system (`OperatingSystemSection`, `id`).
    pub os_id: Option<u32>,
    /// VMware's name for it (`vmw:osType`), such as `debian12_64Guest`.
    pub os_type: Option<String>,
    /// `OperatingSystemSection/Description`.
    pub os_description: Option<String>,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Cores in a socket.
    pub cores_per_socket: Option<u32>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// How it boots.
    pub firmware: Firmware,
    /// Whether the firmware verifies signatures.
    pub secure_boot: bool,
    /// `VirtualSystemType`, such as `vmx-19`.
    pub hardware: Option<String>,
    /// Disk controllers, in the order of the descriptor.
    pub controllers: Vec<Controller>,
    /// Disks, in the order in which the machine sees them.
    pub disks: Vec<OvfDisk>,
    /// Network cards, in the order of the descriptor.
    pub nics: Vec<Nic>,
    /// What is odd and was worked around, one sentence each.
    pub notes: Vec<String>,
}

/// How a machine boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// PC BIOS.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
}

/// A disk controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// `InstanceID`.
    pub id: String,
    /// Its bus.
    pub bus: Bus,
    /// `ResourceSubType`, such as `VirtualSCSI` or `lsilogic`.
    pub model: Option<String>,
    /// `Address`: its number on the machine.
    pub address: Option<u32>,
}

/// What a disk is attached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// IDE.
    Ide,
    /// NVM Express.
    Nvme,
    /// Serial ATA.
    Sata,
    /// SCSI.
    Scsi,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvfDisk {
    /// `diskId`.
    pub id: String,
    /// `ElementName` of the hardware item, such as `Hard Disk 1`.
    pub label: Option<String>,
    /// The file that holds it, as written; `None` for a disk that is delivered empty.
    pub href: Option<String>,
    /// How its file is delivered.
    pub delivery: Delivery,
    /// Virtual size in bytes.
    pub capacity: Option<u64>,
    /// `format`, a URI.
    pub format: Option<String>,
    /// Bus, position of the controller in [`Ovf::controllers`], and address on it.
    pub attached: Option<(Bus, usize, u32)>,
}

/// How a file of a package is delivered (`File`, DSP0243 2.1.1 section 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Its length in bytes as the descriptor gives it, which writers get wrong.
    pub size: Option<u64>,
    /// Whether it is compressed with gzip.
    pub gzip: bool,
    /// Bytes of each chunk but the last, if it is split: `NAME.000000000` and so on.
    pub chunk_size: Option<u64>,
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// `ElementName`, such as `Network adapter 1`.
    pub label: Option<String>,
    /// `ResourceSubType`, such as `VmxNet3`.
    pub model: Option<String>,
    /// `Connection`: the network's name.
    pub network: Option<String>,
    /// `Address`: the MAC address, when it is fixed.
    pub mac: Option<String>,
}

/// Whether `head`, the first bytes of a file, begins like an OVF descriptor.
#[must_use]
pub fn probe(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let xml = text.starts_with(b"<?xml") || text.starts_with(b"<Envelope") || text.starts_with(b"<ovf:Envelope");
    xml && text.windows(9).any(|part| part == b"Envelope " || part == b"Envelope\n" || part == b"Envelope>")
}

impl Ovf {
    /// Parses a descriptor.
    ///
    /// # Errors
    /// `ovf.xml` for what is not well-formed XML without a document type, `ovf.descriptor` for what contradicts itself,
    /// `ovf.unsupported` for several machines, for disks that are based on others, and for unknown compression.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MAX_OVF {
            return Err(Error::limit("ovf.xml", "the descriptor is too large")
                .expected(format!("at most {} bytes", limits::MAX_OVF))
                .found(bytes.len()));
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = std::str::from_utf8(text).map_err(|error| {
            let at = u64::try_from(error.valid_up_to()).unwrap_or(0);
            Error::unsupported("ovf.xml", "the descriptor is not UTF-8").offset(at)
        })?;
        let options =
            ParsingOptions { allow_dtd: false, nodes_limit: limits::MAX_OVF_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options)
            .map_err(|error| Error::corrupt("ovf.xml", "the descriptor is not well-formed XML").because(error))?;
        let envelope = document.root_element();
        if envelope.tag_name().name() != "Envelope" {
            return Err(Error::corrupt("ovf.descriptor", "this is not an OVF descriptor")
                .expected("Envelope")
                .found(envelope.tag_name().name()));
        }
        Parser::new(envelope)?.parse()
    }
}

/// The parts of a descriptor that the machine is put together from.
struct Parser<'a> {
    envelope: Node<'a, 'a>,
    system: Node<'a, 'a>,
    hardware: Option<Node<'a, 'a>>,
    ovf: Ovf,
}

/// A hardware item whose configuration is the one that is deployed by default.
struct Item<'a>(Node<'a, 'a>);

impl<'a> Item<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        child(self.0, name).and_then(|node| node.text()).map(str::trim).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn small(&self, name: &str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }
}

impl<'a> Parser<'a> {
    fn new(envelope: Node<'a, 'a>) -> Result<Self> {
        let systems: Vec<Node<'a, 'a>> =
            envelope.descendants().filter(|node| node.tag_name().name() == "VirtualSystem").collect();
        let system = match systems.as_slice() {
            [system] => *system,
            [] => return Err(Error::corrupt("ovf.descriptor", "the descriptor has no virtual system")),
            many => {
                return Err(Error::unsupported("ovf.unsupported", "the package holds several machines")
                    .expected("1")
                    .found(many.len())
                    .hint("export each machine as a package of its own"));
            }
        };
        let hardware = child(system, "VirtualHardwareSection");
        Ok(Self { envelope, system, hardware, ovf: Ovf::default() })
    }

    fn parse(mut self) -> Result<Ovf> {
        self.names();
        let items = self.items();
        for item in &items {
            self.item(item);
        }
        self.firmware();
        self.disks(&items)?;
        Ok(self.ovf)
    }

    fn names(&mut self) {
        let id = attribute(self.system, "id").unwrap_or_default();
        let name = child(self.system, "Name").and_then(|node| node.text()).map(str::trim);
        name.filter(|name| !name.is_empty()).unwrap_or(id).clone_into(&mut self.ovf.name);
        if let Some(section) = child(self.system, "OperatingSystemSection") {
            self.ovf.os_id = attribute(section, "id").and_then(|id| id.parse().ok());
            self.ovf.os_type = attribute(section, "osType").map(str::to_owned);
            let description = child(section, "Description").and_then(|node| node.text()).map(str::trim);
            self.ovf.os_description = description.filter(|text| !text.is_empty()).map(str::to_owned);
        }
        let kind = self.hardware.and_then(|hardware| descendant(hardware, "VirtualSystemType"));
        self.ovf.hardware = kind.and_then(|node| node.text()).map(|text| text.trim().to_owned());
    }

    /// The hardware items of the default configuration, without those that only state a minimum or maximum.
    fn items(&self) -> Vec<Item<'a>> {
        let configurations = child(self.envelope, "DeploymentOptionSection");
        let configuration = configurations.and_then(|section| {
            let all = || section.children().filter(|node| node.tag_name().name() == "Configuration");
            all().find(|node| attribute(*node, "default") == Some("true")).or_else(|| all().next())
        });
        let configuration = configuration.and_then(|node| attribute(node, "id"));
        let chosen = |node: &Node<'a, 'a>| match attribute(*node, "configuration") {
            None => true,
            Some(list) => list.split_whitespace().any(|id| Some(id) == configuration),
        };
        let bound = |node: &Node<'a, 'a>| matches!(attribute(*node, "bound"), Some("min" | "max"));
        let hardware = self.hardware.into_iter().flat_map(|hardware| hardware.children());
        hardware
            .filter(|node| matches!(node.tag_name().name(), "Item" | "StorageItem" | "EthernetPortItem"))
            .filter(|node| chosen(node) && !bound(node))
            .map(Item)
            .collect()
    }

    /// `ResourceType` by the CIM schema: 3 processor, 4 memory, 5 IDE, 6 parallel SCSI, 10 Ethernet, 17 disk, 20 other storage.
    fn item(&mut self, item: &Item<'_>) {
        let model = item.text("ResourceSubType");
        match item.small("ResourceType") {
            Some(3) => {
                self.ovf.cpus = item.small("VirtualQuantity");
                self.ovf.cores_per_socket = item.small("CoresPerSocket");
            }
            Some(4) => self.memory(item),
            Some(5) => self.controller(item, Bus::Ide),
            Some(6) => self.controller(item, Bus::Scsi),
            Some(20) if says(model, "nvme") => self.controller(item, Bus::Nvme),
            Some(20) if says(model, "ahci") || says(model, "sata") => self.controller(item, Bus::Sata),
            Some(10) => self.ovf.nics.push(Nic {
                label: item.owned("ElementName").or_else(|| item.owned("Caption")),
                model: model.map(str::to_owned),
                network: item.owned("Connection"),
                mac: item.text("Address").and_then(mac),
            }),
            _ => {}
        }
    }

    fn memory(&mut self, item: &Item<'_>) {
        let unit = match item.text("AllocationUnits") {
            Some(text) => bytes_per_unit(text),
            None => Some(1 << 20),
        };
        if unit.is_none() {
            self.ovf.notes.push("the unit of the memory size is not known; it is taken as MiB".into());
        }
        self.ovf.memory =
            item.number("VirtualQuantity").and_then(|quantity| quantity.checked_mul(unit.unwrap_or(1 << 20)));
    }

    fn controller(&mut self, item: &Item<'_>, bus: Bus) {
        self.ovf.controllers.push(Controller {
            id: item.owned("InstanceID").unwrap_or_default(),
            bus,
            model: item.owned("ResourceSubType"),
            address: item.small("Address"),
        });
    }

    /// VMware says it in `vmw:Config`, VirtualBox in an element of its own.
    fn firmware(&mut self) {
        for node in self.system.descendants().filter(Node::is_element) {
            let (key, value) =
                (attribute(node, "key").unwrap_or_default(), attribute(node, "value").unwrap_or_default());
            match node.tag_name().name() {
                "Config" | "ExtraConfig" if key == "firmware" && value.eq_ignore_ascii_case("efi") => {
                    self.ovf.firmware = Firmware::Uefi;
                }
                "Config" | "ExtraConfig" if key.to_ascii_lowercase().contains("secureboot") => {
                    self.ovf.secure_boot |= value.eq_ignore_ascii_case("true");
                }
                "Firmware" if attribute(node, "type").is_some_and(|kind| kind.starts_with("EFI")) => {
                    self.ovf.firmware = Firmware::Uefi;
                }
                _ => {}
            }
        }
    }

    /// Disks of the hardware in the order of their controllers and addresses, then those that nothing attaches.
    fn disks(&mut self, items: &[Item<'_>]) -> Result<()> {
        let mut known = self.disk_section()?;
        let mut attached: Vec<(Order, OvfDisk)> = Vec::new();
        for (position, item) in items.iter().enumerate().filter(|(_, item)| item.small("ResourceType") == Some(17)) {
            let Some(host) = item.text("HostResource") else {
                self.ovf.notes.push("a disk of the machine has no content and is left out".into());
                continue;
            };
            let id = host.rsplit('/').next().unwrap_or(host);
            let Some(index) = known.iter().position(|disk| disk.id == id) else {
                return Err(
                    Error::corrupt("ovf.descriptor", "the hardware refers to a disk that is not described").found(host)
                );
            };
            let mut disk = known.remove(index);
            disk.label = item.owned("ElementName");
            let order = self.attach(item, &mut disk, position);
            attached.push((order, disk));
        }
        attached.sort_by_key(|(order, _)| *order);
        self.ovf.disks = attached.into_iter().map(|(_, disk)| disk).collect();
        for disk in known {
            self.ovf.notes.push(format!("disk {} is attached to no controller; it comes last", disk.id));
            self.ovf.disks.push(disk);
        }
        Ok(())
    }

    fn attach(&self, item: &Item<'_>, disk: &mut OvfDisk, position: usize) -> Order {
        let parent = item.text("Parent");
        let address = item.small("AddressOnParent").unwrap_or(u32::MAX);
        let number = parent.and_then(|parent| self.ovf.controllers.iter().position(|known| known.id == parent));
        let Some((number, controller)) = number.and_then(|number| Some((number, self.ovf.controllers.get(number)?)))
        else {
            return (usize::MAX, u32::MAX, usize::MAX, address, position);
        };
        disk.attached = Some((controller.bus, number, address));
        let first = self.ovf.controllers.iter().position(|other| other.bus == controller.bus).unwrap_or(number);
        (first, controller.address.unwrap_or(u32::MAX), number, address, position)
    }

    /// The disks of `DiskSection`, in its order.
    fn disk_section(&self) -> Result<Vec<OvfDisk>> {
        let section = child(self.envelope, "DiskSection").or_else(|| child(self.envelope, "Section"));
        let nodes = section.into_iter().flat_map(|section| section.children());
        let mut disks: Vec<OvfDisk> = Vec::new();
        for node in nodes.filter(|node| node.tag_name().name() == "Disk") {
            let disk = self.disk(node)?;
            if disks.iter().any(|other| other.id == disk.id) {
                return Err(Error::corrupt("ovf.descriptor", "two disks have one id").found(&disk.id));
            }
            disks.push(disk);
        }
        Ok(disks)
    }

    fn disk(&self, node: Node<'a, 'a>) -> Result<OvfDisk> {
        let id = attribute(node, "diskId").unwrap_or_default().to_owned();
        if attribute(node, "parentRef").is_some() {
            return Err(Error::unsupported("ovf.unsupported", "a disk is based on another disk of the package").at(id));
        }
        let (href, delivery) = match attribute(node, "fileRef") {
            Some(reference) => self.file(reference, &id).map(|(href, delivery)| (Some(href), delivery))?,
            None => (None, Delivery::default()),
        };
        let unit = attribute(node, "capacityAllocationUnits").map_or(Some(1), bytes_per_unit);
        let capacity = attribute(node, "capacity").and_then(|text| text.trim().parse::<u64>().ok());
        Ok(OvfDisk {
            label: None,
            href,
            delivery,
            capacity: capacity.zip(unit).and_then(|(capacity, unit)| capacity.checked_mul(unit)),
            format: attribute(node, "format").map(str::to_owned),
            attached: None,
            id,
        })
    }

    /// The name of the file that `References` lists under `id`, and how it comes.
    fn file(&self, id: &str, disk: &str) -> Result<(String, Delivery)> {
        let references = child(self.envelope, "References");
        let mut files = references.into_iter().flat_map(|references| references.children());
        let file =
            files.find(|node| node.tag_name().name() == "File" && attribute(*node, "id") == Some(id)).ok_or_else(
                || Error::corrupt("ovf.descriptor", "a disk refers to a file that is not listed").at(disk).found(id),
            )?;
        let gzip = match attribute(file, "compression").unwrap_or("identity") {
            "" | "identity" => false,
            kind if kind.eq_ignore_ascii_case("gzip") => true,
            kind => {
                return Err(Error::unsupported("ovf.unsupported", "a disk's file is compressed in an unknown way")
                    .at(disk)
                    .expected("gzip")
                    .found(kind));
            }
        };
        let number = |name| attribute(file, name).and_then(|text| text.trim().parse::<u64>().ok());
        let chunk_size = number("chunkSize").filter(|size| *size > 0);
        if attribute(file, "chunkSize").is_some() && chunk_size.is_none() {
            return Err(Error::corrupt("ovf.descriptor", "a disk's file is split into chunks of no size").at(disk));
        }
        let href = attribute(file, "href").unwrap_or_default();
        if href.is_empty() {
            return Err(Error::corrupt("ovf.descriptor", "a file has no name").found(id));
        }
        Ok((href.to_owned(), Delivery { size: number("size"), gzip, chunk_size }))
    }
}

/// Buses in the order of the descriptor, then controllers by their number, then addresses.
type Order = (usize, u32, usize, u32, usize);

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.tag_name().name() == name)
}

fn descendant<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.descendants().find(|child| child.tag_name().name() == name)
}

fn attribute<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    node.attributes().find(|attribute| attribute.name() == name).map(|attribute| attribute.value())
}

fn says(model: Option<&str>, word: &str) -> bool {
    model.is_some_and(|model| model.to_ascii_lowercase().contains(word))
}

/// A MAC address in its usual form; anything else is an address of another kind.
fn mac(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let good = parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    good.then(|| parts.join(":").to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
