//! OVA packages that are written, as tar, a parser of XML, qemu-img and the program itself read them.

use std::path::{Path, PathBuf};

use crate::support::{Lab, Run, tools};

/// A machine of two disks, one on SCSI and one on SATA.
fn machine(lab: &Lab) -> PathBuf {
    for (name, len, byte) in [("root", 3 << 20, 1_u8), ("data", (33 << 20) + 512, 2)] {
        let mut bytes = vec![0; len];
        bytes[..70_000].fill(byte);
        bytes[len - 512..].fill(byte + 2);
        let raw = lab.file(&format!("{name}.raw"), bytes);
        let vmdk = lab.path(&format!("{name}.vmdk"));
        tools::ok("qemu-img", ["convert", "-O", "vmdk"].map(Path::new).into_iter().chain([raw.as_path(), &vmdk]));
    }
    lab.file(
        "web.vmx",
        "config.version = \"8\"\ndisplayName = \"web & <co>\"\nguestOS = \"debian11-64\"\nfirmware = \"efi\"\n\
         memsize = \"1024\"\nnumvcpus = \"3\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n\
         scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"root.vmdk\"\nsata0.present = \"TRUE\"\n\
         sata0:1.present = \"TRUE\"\nsata0:1.fileName = \"data.vmdk\"\nethernet0.present = \"TRUE\"\n\
         ethernet0.virtualDev = \"vmxnet3\"\nethernet0.networkName = \"lan\"\n",
    );
    lab.path("web.vmx")
}

/// Reads the descriptor and the manifest with Python's own parsers, checks every length and digest, and prints what matters.
const READER: &str = r#"
import hashlib, sys, tarfile, xml.etree.ElementTree as xml
ns = {"o": "http://schemas.dmtf.org/ovf/envelope/1",
      "r": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"}
ovf = "{%s}" % ns["o"]
with tarfile.open(sys.argv[1]) as tar:
    members = {member.name: member for member in tar.getmembers()}
    names = list(members)
    assert names[0].endswith(".ovf") and names[-1].endswith(".mf"), names
    content = {name: tar.extractfile(name).read() for name in names}
root = xml.fromstring(content[names[0]])
for file in root.findall("o:References/o:File", ns):
    assert int(file.get(ovf + "size")) == members[file.get(ovf + "href")].size, names
lines = content[names[-1]].decode().splitlines()
for line in lines:
    name, digest = line.removeprefix("SHA256(").split(")= ")
    assert hashlib.sha256(content[name]).hexdigest() == digest, name
assert len(lines) == len(names) - 1, lines
print(root.find("o:VirtualSystem/o:Name", ns).text, *names)
for item in root.findall(".//o:Item", ns):
    print(*(item.findtext("r:" + name, "-", ns) for name in ("ResourceType", "ResourceSubType", "VirtualQuantity", "Parent")))
"#;

#[test]
fn a_machine_becomes_a_package_that_others_read() {
    let lab = Lab::new();
    let (vmx, ova) = (machine(&lab), lab.path("web.ova"));
    let json = Run::new(["convert", "--json"]).arg(&vmx).arg(&ova).success().json();
    assert_eq!(json["output"]["verified"], true);
    let listed = tools::ok("tar", [Path::new("-tf"), &ova]);
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names, ["web----co.ovf", "web----co-disk1.vmdk", "web----co-disk2.vmdk", "web----co.mf"], "{listed}");
    let read = tools::ok("python3", [Path::new("-c"), Path::new(READER), &ova]);
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines[0], format!("web & <co> {}", names.join(" ")));
    assert_eq!(
        lines[1..],
        [
            "3 - 3 -",
            "4 - 1024 -",
            "6 VirtualSCSI - -",
            "20 vmware.sata.ahci - -",
            "17 - - 3",
            "17 - - 4",
            "10 VmxNet3 - -"
        ]
    );
    tools::ok("tar", [Path::new("-xf"), &ova, Path::new("-C"), &lab.folder("unpacked")]);
    for (number, name) in [(1, "root"), (2, "data")] {
        let disk = lab.path(&format!("unpacked/web----co-disk{number}.vmdk"));
        tools::assert_same_content(("raw", &lab.path(&format!("{name}.raw"))), ("vmdk", &disk));
        // The program reads its own package, and its digests are right.
        let raw = lab.path("back.raw");
        let number = number.to_string();
        let back = Run::new(["convert", "--json", "--force", "--disk", &number]).arg(&ova).arg(&raw).success().json();
        assert!(back["digests"].as_array().is_some_and(|digests| digests.len() == 2), "{back}");
        tools::assert_same_content(("raw", &lab.path(&format!("{name}.raw"))), ("raw", &raw));
    }
    let info = Run::new(["info", "--json"]).arg(&ova).success().json();
    assert_eq!(info["container"], "ova", "{info}");
}

#[test]
fn what_cannot_be_a_package_is_said_so() {
    let lab = Lab::new();
    let vmx = machine(&lab);
    let convert = || Run::new(["convert".as_ref(), vmx.as_os_str()]).arg("--to=ova");
    convert().arg("-").fails_with(2).code("convert.stream");
    convert().args(["--size=64M"]).arg(lab.path("a.ova")).fails_with(2).code("convert.options");
    convert().args(["--compress=zstd"]).arg(lab.path("a.ova")).fails_with(2).code("convert.options");
    // One disk may grow.
    convert().args(["--size=64M", "--disk=1"]).arg(lab.path("a.ova")).success();
    assert_eq!(lab.names("."), ["a.ova", "data.raw", "data.vmdk", "root.raw", "root.vmdk", "web.vmx"]);
}

#[test]
fn a_name_without_measure_does_no_harm() {
    let lab = Lab::new();
    let vmx = machine(&lab);
    let text = std::fs::read_to_string(&vmx).expect("the machine");
    lab.file("long.vmx", text.replace("web & <co>", &"<\u{e9}>".repeat(50_000)));
    let ova = lab.path("long.ova");
    Run::new(["convert"]).arg(lab.path("long.vmx")).arg(&ova).success();
    let listed = tools::ok("tar", [Path::new("-tf"), &ova]);
    assert!(listed.lines().all(|name| name.len() <= 100), "{listed}");
    tools::ok("python3", [Path::new("-c"), Path::new(READER), &ova]);
}
