//! Our module index against kmod's own: depmod writes the same bytes, and modprobe reads ours.
#![allow(clippy::disallowed_methods, reason = "these tests run depmod and modprobe on files that they made")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::modules::Lists;

const RELEASE: &str = "6.1.0-test";

/// An ELF64 relocatable file that depmod takes for a module: `.modinfo`, exported names, undefined symbols.
fn module(info: &[&str], exports: &[&str], needs: &[&str]) -> Vec<u8> {
    let strings =
        |list: &[&str]| -> Vec<u8> { list.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect() };
    let mut names = vec![0];
    let mut symbols = vec![0; 24];
    for need in needs {
        symbols.extend(u32::try_from(names.len()).unwrap().to_le_bytes());
        symbols.extend([0x10, 0, 0, 0]);
        symbols.extend([0; 16]);
        names.extend(need.bytes());
        names.push(0);
    }
    let sections: [(&str, u32, Vec<u8>, u32, u64); 5] = [
        (".modinfo", 1, strings(info), 0, 0),
        ("__ksymtab_strings", 1, strings(exports), 0, 0),
        (".symtab", 2, symbols, 4, 24),
        (".strtab", 3, names, 0, 0),
        (".shstrtab", 3, b"\0.modinfo\0__ksymtab_strings\0.symtab\0.strtab\0.shstrtab\0".to_vec(), 0, 0),
    ];
    let labels = sections[4].2.clone();
    let mut body = Vec::new();
    let mut headers = vec![0; 64];
    for (name, kind, content, link, entry) in &sections {
        let label = [b"\0", name.as_bytes(), b"\0"].concat();
        let at = labels.windows(label.len()).position(|window| window == label).unwrap();
        headers.extend(u32::try_from(at).unwrap().wrapping_add(1).to_le_bytes());
        headers.extend(kind.to_le_bytes());
        headers.extend([0; 16]);
        headers.extend(u64::try_from(body.len()).unwrap().wrapping_add(64).to_le_bytes());
        headers.extend(u64::try_from(content.len()).unwrap().to_le_bytes());
        headers.extend(link.to_le_bytes());
        headers.extend([0; 4]);
        headers.extend(1_u64.to_le_bytes());
        headers.extend(entry.to_le_bytes());
        body.extend(content);
    }
    body.resize(body.len().next_multiple_of(8), 0);
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend([0; 16]);
    elf.extend(u64::try_from(body.len()).unwrap().wrapping_add(64).to_le_bytes());
    elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 6, 0, 5, 0]);
    elf.extend(body);
    elf.extend(headers);
    elf
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (Debian package kmod): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A tree of modules with depmod's index.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let dir = root.join("lib/modules").join(RELEASE);
    let order = [
        ("virtio/virtio.ko", module(&["alias=virtio-core"], &["register_virtio_driver", "virtio_break"], &[])),
        ("virtio/virtio_ring.ko", module(&["license=GPL"], &["vring_create"], &[])),
        (
            "virtio/virtio-pci.ko",
            module(&["alias=pci:v00001AF4d*sv*sd*bc*sc*i*"], &[], &["register_virtio_driver", "vring_create"]),
        ),
        (
            "block/virtio_blk.ko",
            module(
                &["alias=virtio:d00000002v*", "softdep=pre: virtio_pci"],
                &[],
                &["register_virtio_driver", "printk"],
            ),
        ),
        ("net/odd-one.ko", module(&["alias=net-pf-[0-9]-x", "alias=virtio:d00000002v*"], &["odd"], &["virtio_break"])),
    ];
    let mut listed = String::new();
    for (path, content) in &order {
        let file = dir.join("kernel").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        listed.push_str(&format!("kernel/{path}\n"));
    }
    std::fs::write(dir.join("modules.order"), listed).unwrap();
    std::fs::write(dir.join("modules.builtin"), "kernel/drivers/scsi/sd_mod.ko\n").unwrap();
    run("depmod", &["-b", root.to_str().unwrap(), RELEASE]);
    let files =
        std::fs::read_dir(&dir).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

fn lists(files: &BTreeMap<String, Vec<u8>>) -> Lists {
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    Lists::parse(
        &text("modules.dep"),
        &text("modules.alias"),
        &text("modules.symbols"),
        &text("modules.softdep"),
        &text("modules.builtin"),
    )
}

#[test]
fn the_index_is_the_one_that_depmod_writes() {
    let root = tempfile::tempdir().unwrap();
    let theirs = tree(root.path());
    for (name, ours) in lists(&theirs).files().unwrap() {
        assert!(
            ours == theirs[name],
            "{name}:\nours   {}\ntheirs {}",
            ours.escape_ascii(),
            theirs[name].escape_ascii()
        );
    }
}

#[test]
fn modprobe_finds_the_same_through_an_index_of_a_subset() {
    let root = tempfile::tempdir().unwrap();
    let theirs = tree(root.path());
    let guest = lists(&theirs);
    let added = guest.closure(["virtio_blk"]);
    let union = guest.union(&Lists::default(), &BTreeMap::new(), &added);
    let image = tempfile::tempdir().unwrap();
    let dir = image.path().join("lib/modules").join(RELEASE);
    std::fs::create_dir_all(&dir).unwrap();
    for added in &added {
        let (from, to) = (root.path().join("lib/modules").join(RELEASE).join(&added.path), dir.join(&added.path));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
    for (name, content) in union.files().unwrap() {
        std::fs::write(dir.join(name), content).unwrap();
    }
    for name in
        ["virtio_blk", "virtio-pci", "pci:v00001AF4d00001042sv0sd0bc0sc0i0", "symbol:vring_create", "virtio_core"]
    {
        let depends = |root: &Path| {
            let root = root.to_str().unwrap();
            let shown = run("modprobe", &["-C", "/dev/null", "-d", root, "-S", RELEASE, "--show-depends", name]);
            shown.replace(root, "")
        };
        let ours = depends(image.path());
        assert!(ours.contains("insmod /lib/modules/"), "{name}: {ours}");
        assert_eq!(ours, depends(root.path()), "{name}");
    }
}
