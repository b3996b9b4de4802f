//! Images that name files of the host: refused, whether those exist or not, and never looked at.

use std::path::Path;

use super::image::Image;
use crate::support::{Lab, Run};

/// Builds an image that names a file.
type Naming = fn(&str) -> Vec<u8>;

const IMAGES: &[(&str, Naming)] = &[
    ("qcow2-backing", |name| {
        let image = Image::made("qcow2", "").be64(8, 0x200).be32(16, u32::try_from(name.len()).expect("short"));
        image.put(0x200, name.as_bytes()).bytes().to_vec()
    }),
    ("vmdk-flat", |name| vmdk(&format!("RW 8 FLAT \"{name}\" 0"), "")),
    ("vmdk-vmfs", |name| vmdk(&format!("RW 8 VMFS \"{name}\""), "")),
    ("vmdk-sparse", |name| vmdk(&format!("RW 8 SPARSE \"{name}\""), "")),
    ("vmdk-parent", |name| vmdk("RW 8 FLAT \"flat\" 0", &format!("parentFileNameHint=\"{name}\""))),
    ("qcow2-data-file", |name| {
        // The incompatible feature bit, and a header extension of this type with the name.
        let len = u32::try_from(name.len()).expect("short");
        let image = Image::made("qcow2", "").be64(72, 4).be32(112, 0x4441_5441).be32(116, len);
        let image = image.put(120, name.as_bytes());
        image.put(120 + name.len().next_multiple_of(8), &[0; 8]).bytes().to_vec()
    }),
    ("vmx", |name| {
        format!("config.version = \"8\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"{name}\"\n").into_bytes()
    }),
    ("ovf-href", |name| {
        format!(
            "<?xml version='1.0'?><Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'><References><File id='f' \
             href='{name}'/></References><DiskSection><Disk diskId='d' fileRef='f' capacity='4096'/></DiskSection>\
             <VirtualSystem id='vm'/></Envelope>"
        )
        .into_bytes()
    }),
];

fn vmdk(extent: &str, parent: &str) -> Vec<u8> {
    let parent_cid = if parent.is_empty() { "ffffffff" } else { "12345678" };
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID={parent_cid}\ncreateType=\"monolithicFlat\"\n{parent}\n{extent}\n"
    )
    .into_bytes()
}

/// Pairs of a name that leads to something and one of the same length that does not.
const NAMES: [[&str; 2]; 5] = [
    ["/etc/passwd", "/etc/passwx"],
    ["../../../../../../../../etc/passwd", "../../../../../../../../etc/passwx"],
    ["file:///etc/passwd", "file:///etc/passwx"],
    ["/proc/self/root/etc/passwd", "/proc/self/root/etc/passwx"],
    ["a-link-that-is-there", "a-link-that-is-not-he"],
];

#[test]
fn names_that_lead_elsewhere_are_refused_and_never_looked_at() {
    let lab = Lab::new();
    std::os::unix::fs::symlink("/etc/passwd", lab.path(NAMES[4][0])).expect("a link");
    lab.file("flat", [0; 4096]);
    for (id, build) in IMAGES {
        for [there, absent] in NAMES {
            let image = lab.path(id);
            let mut said = [there, absent].map(|name| {
                std::fs::write(&image, build(name)).expect("writing");
                refusal(&lab, &image, name)
            });
            if there.starts_with('/') || there.contains(':') || there.starts_with("..") {
                said[0] = said[0].replace(there, absent);
                assert_eq!(said[0], said[1], "{id}: it tells whether the file exists");
            }
            std::fs::remove_file(&image).expect("removing");
        }
    }
}

/// What `info` says; it must neither open nor ask for the file.
fn refusal(lab: &Lab, image: &Path, name: &str) -> String {
    let log = lab.path("strace.log");
    let ran = Run::new(["info".as_ref(), image.as_os_str()]).strace("%file,%network", &log).ran();
    assert!(matches!(ran.status.code(), Some(3 | 5)), "{ran}");
    let calls = std::fs::read_to_string(&log).expect("the log");
    let touched: Vec<_> = calls.lines().filter(|line| line.contains("etc/passw")).collect();
    assert!(touched.is_empty(), "{name}: {touched:?}");
    ran.stderr
}
