#![allow(clippy::arithmetic_side_effects, reason = "tests build their input")]

use super::*;

/// A descriptor as VMware writes it, with a few parts to replace.
const GOOD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="urn:vssd">
  <References><File ovf:href="b.vmdk" ovf:id="file2"/><File ovf:href="a.vmdk" ovf:id="file1" ovf:size="1"/></References>
  <DiskSection><Info>Disks</Info>
    <Disk ovf:capacity="3" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="d1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
    <Disk ovf:capacity="1024" ovf:diskId="d2" ovf:fileRef="file2"/>
    <Disk ovf:capacity="7" ovf:diskId="d3"/>
  </DiskSection>
  <VirtualSystem ovf:id="vm-1"><Info>A machine</Info><Name>web 1</Name>
    <OperatingSystemSection ovf:id="96" vmw:osType="debian12_64Guest"><Info/><Description>Debian 12</Description></OperatingSystemSection>
    <VirtualHardwareSection>
      <System><vssd:VirtualSystemType>vmx-19</vssd:VirtualSystemType></System>
      <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>4</rasd:VirtualQuantity><vmw:CoresPerSocket>2</vmw:CoresPerSocket></Item>
      <Item ovf:bound="max"><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>64</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>1</rasd:Address><rasd:InstanceID>8</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceSubType>vmware.sata.ahci</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Hard Disk 2</rasd:ElementName><rasd:HostResource>/disk/d2</rasd:HostResource><rasd:Parent>8</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Hard Disk 1</rasd:ElementName><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:Address>00:50:56:AB-cd:01</rasd:Address><rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>Network adapter 1</rasd:ElementName><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
      <Item><rasd:ResourceType>15</rasd:ResourceType></Item>
      <vmw:Config vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>"#;

fn parse(text: &str) -> Result<Ovf> {
    Ovf::parse(text.as_bytes())
}

#[test]
fn a_good_descriptor_parses() {
    let ovf = parse(GOOD).unwrap();
    assert_eq!((ovf.name.as_str(), ovf.os_id, ovf.os_type.as_deref()), ("web 1", Some(96), Some("debian12_64Guest")));
    assert_eq!((ovf.os_description.as_deref(), ovf.hardware.as_deref()), (Some("Debian 12"), Some("vmx-19")));
    assert_eq!((ovf.cpus, ovf.cores_per_socket, ovf.memory), (Some(4), Some(2), Some(1 << 30)));
    assert_eq!((ovf.firmware, ovf.secure_boot), (Firmware::Uefi, true));
    let nic = Nic {
        label: Some("Network adapter 1".into()),
        model: Some("VmxNet3".into()),
        network: Some("VM Network".into()),
        mac: Some("00:50:56:ab:cd:01".into()),
    };
    assert_eq!(ovf.nics, [nic]);
    assert_eq!(ovf.controllers.iter().map(|c| c.bus).collect::<Vec<_>>(), [Bus::Scsi, Bus::Scsi, Bus::Sata]);
}

#[test]
fn disks_come_in_the_order_of_the_machine() {
    let ovf = parse(GOOD).unwrap();
    let disks: Vec<_> = ovf.disks.iter().map(|d| (d.id.as_str(), d.href.as_deref(), d.capacity, d.attached)).collect();
    assert_eq!(
        disks,
        [
            ("d1", Some("a.vmdk"), Some(3 << 30), Some((Bus::Scsi, 1, 0))),
            ("d2", Some("b.vmdk"), Some(1024), Some((Bus::Scsi, 0, 0))),
            ("d3", None, Some(7), None),
        ]
    );
    assert!(ovf.notes.iter().any(|note| note.contains("d3")), "{:?}", ovf.notes);
}

#[test]
fn prefixes_and_versions_do_not_matter() {
    let prefixed = GOOD
        .replace("<Envelope ", "<ovf:Envelope ")
        .replace("</Envelope>", "</ovf:Envelope>")
        .replace("xmlns:rasd", "xmlns:sasd")
        .replace("rasd:", "sasd:")
        .replace("<Item>", "<StorageItem>")
        .replace("</Item>", "</StorageItem>")
        .replace("<Item ovf:bound", "<StorageItem ovf:bound");
    assert_eq!(parse(&prefixed).unwrap(), parse(GOOD).unwrap());
    assert_eq!(parse(&format!("\u{feff}{GOOD}")).unwrap(), parse(GOOD).unwrap());
}

#[test]
fn the_default_configuration_counts() {
    let text = GOOD
        .replace(
            "<VirtualSystem ",
            "<DeploymentOptionSection><Configuration ovf:id=\"small\"/><Configuration ovf:id=\"big\" ovf:default=\"true\"/></DeploymentOptionSection><VirtualSystem ",
        )
        .replace("<Item ovf:bound=\"max\">", "<Item ovf:configuration=\"big huge\">");
    assert_eq!(parse(&text).unwrap().cpus, Some(64));
    assert_eq!(parse(&text.replace("ovf:default=\"true\"", "")).unwrap().cpus, Some(4));
}

#[test]
fn a_bios_machine_without_much_said() {
    let ovf = parse("<Envelope><VirtualSystem id='x'/></Envelope>").unwrap();
    assert_eq!(ovf, Ovf { name: "x".into(), ..Ovf::default() });
}

#[test]
fn hostile_descriptors_are_refused() {
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>";
    let dtd = GOOD.replace("<Envelope", &format!("{bomb}<Envelope"));
    let xxe = GOOD.replace("<Envelope", "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><Envelope");
    let second = GOOD.replace("</Envelope>", "<VirtualSystem/></Envelope>");
    let cases = [
        (String::new(), "ovf.xml"),
        ("<Envelope>".into(), "ovf.xml"),
        ("<html/>".into(), "ovf.descriptor"),
        ("<Envelope/>".into(), "ovf.descriptor"),
        (dtd, "ovf.xml"),
        (xxe, "ovf.xml"),
        (GOOD.replace("web 1", "&e;"), "ovf.xml"),
        (second, "ovf.unsupported"),
        (GOOD.replace("/disk/d2", "/disk/d9"), "ovf.descriptor"),
        (GOOD.replace("ovf:fileRef=\"file2\"", "ovf:fileRef=\"file9\""), "ovf.descriptor"),
        (GOOD.replace("ovf:diskId=\"d2\"", "ovf:diskId=\"d1\""), "ovf.descriptor"),
        (GOOD.replace("ovf:href=\"b.vmdk\"", "ovf:href=\"\""), "ovf.descriptor"),
        (GOOD.replace("ovf:href=\"b.vmdk\"", "ovf:href=\"b\" ovf:compression=\"bzip2\""), "ovf.unsupported"),
        (GOOD.replace("ovf:href=\"b.vmdk\"", "ovf:href=\"b\" ovf:chunkSize=\"0\""), "ovf.descriptor"),
        (GOOD.replace("ovf:fileRef=\"file2\"", "ovf:parentRef=\"d1\""), "ovf.unsupported"),
    ];
    for (text, code) in cases {
        assert_eq!(parse(&text).unwrap_err().code(), code, "{text:.200}");
    }
    assert_eq!(Ovf::parse(b"<Envelope>\xff</Envelope>").unwrap_err().code(), "ovf.xml");
    let numbers = GOOD.replace(">1024<", ">99999999999999999999999<").replace("\"1024\"", "\"${size}\"");
    let ovf = parse(&numbers).unwrap();
    assert_eq!((ovf.memory, ovf.disks[1].capacity), (None, None));
}

#[test]
fn size_and_nodes_are_bounded() {
    let deep =
        |depth: usize| format!("<Envelope>{}{}<VirtualSystem/></Envelope>", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(parse(&deep(100_000)).is_ok(), "depth needs no stack");
    let wide = |count: usize| format!("<Envelope><VirtualSystem/>{}</Envelope>", "<a/>".repeat(count));
    let most = usize::try_from(limits::MAX_OVF_NODES).unwrap();
    assert!(parse(&wide(most - 10)).is_ok());
    assert_eq!(parse(&wide(most + 1)).unwrap_err().code(), "ovf.xml");
    let mut text = GOOD.to_owned();
    text.extend(std::iter::repeat_n(' ', limits::MAX_OVF - text.len()));
    assert!(parse(&text).is_ok());
    text.push(' ');
    assert_eq!(parse(&text).unwrap_err().kind(), crate::Kind::Limit);
}

#[test]
fn every_truncation_fails() {
    for len in (0..GOOD.len()).filter(|len| GOOD.is_char_boundary(*len)) {
        assert!(parse(&GOOD[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn probing() {
    assert!(probe(GOOD.as_bytes()));
    assert!(probe(b"\xef\xbb\xbf <ovf:Envelope xmlns"));
    assert!(!probe(b"<?xml version=\"1.0\"?><html>"));
    assert!(!probe(b"# Disk DescriptorFile"));
}

#[test]
fn files_may_be_compressed_and_split() {
    let ovf = parse(&GOOD.replace("ovf:size=\"1\"", "ovf:size=\"1\" ovf:compression=\"gzip\" ovf:chunkSize=\"4096\""))
        .unwrap();
    assert_eq!(ovf.disks[0].delivery, Delivery { size: Some(1), gzip: true, chunk_size: Some(4096) });
    assert_eq!(ovf.disks[1].delivery, Delivery::default());
}
