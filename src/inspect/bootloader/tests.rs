//! Boot loaders found in trees, with what they boot by default.

use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;
use crate::initramfs::unified::tests::program;

type Files<'a> = &'a [(&'a str, &'a str)];

fn tree(files: Files<'_>) -> Tree {
    let fs = MemoryFs::default();
    for (path, text) in files {
        fs.add_file(path, text).unwrap();
    }
    Tree::new(Arc::new(fs))
}

fn read(tree: &Tree) -> (Vec<Bootloader>, Vec<BootEntry>) {
    let mut reader = Reader { tree, notes: Vec::new() };
    let mut loaders = find(&mut reader).unwrap();
    let entries = entries(&mut reader, &mut loaders).unwrap();
    (loaders, entries)
}

/// The kernels that are started by default.
fn defaults(files: Files<'_>) -> Vec<String> {
    let (_, entries) = read(&tree(files));
    entries.into_iter().filter(|entry| entry.default).map(|entry| entry.kernel).collect()
}

fn env(lines: &str) -> String {
    format!("{:#<1024}", format!("# GRUB Environment Block\n{lines}"))
}

const DEBIAN: &str = "if [ \"${next_entry}\" ] ; then\n   set default=\"${next_entry}\"\n   set next_entry=\nelse\n   set default=\"DEFAULT\"\nfi\n\
    function savedefault {\n  if true; then\n    save_env saved_entry\n  fi\n}\n\
    menuentry 'Debian' --class gnu-linux $menuentry_id_option 'gnulinux-simple-U' {\n\tlinux /vmlinuz-6\n}\n\
    submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-U' {\n\
    \tmenuentry 'Debian, Linux 6' --id six {\n\t\tlinux /advanced-6\n\t}\n\
    \tmenuentry 'Debian, Linux 5 (recovery > mode)' --id=five {\n\t\tlinux /advanced-5\n\t}\n}\n\
    menuentry 'Windows' {\n\tchainloader +1\n}\nmenuentry 'Memory test' {\n linux16 /memtest\n}\n";

#[test]
fn grub_starts_what_its_default_leads_to() {
    for (default, variables, kernel) in [
        ("0", "", Some("/vmlinuz-6")),
        ("1>0", "", Some("/advanced-6")),
        ("1>1", "", Some("/advanced-5")),
        ("1", "", Some("/advanced-6")),
        ("2", "", None),
        ("3", "", Some("/memtest")),
        ("Debian", "", Some("/vmlinuz-6")),
        ("Advanced options>Debian, Linux 5 (recovery >> mode)", "", Some("/advanced-5")),
        ("gnulinux-advanced-U>six", "", Some("/advanced-6")),
        ("1>five", "", Some("/advanced-5")),
        ("${saved_entry}", "saved_entry=1>1\n", Some("/advanced-5")),
        ("${saved_entry}", "", Some("/vmlinuz-6")),
        ("${saved_entry}", "saved_entry=gone\n", Some("/vmlinuz-6")),
        ("${saved_entry}", "saved_entry=Windows\n", None),
        ("0", "next_entry=1>1\n", Some("/advanced-5")),
        ("0", "next_entry=\n", Some("/vmlinuz-6")),
    ] {
        let text = DEBIAN.replace("DEFAULT", default);
        let found = defaults(&[("/boot/grub/grub.cfg", &text), ("/boot/grub/grubenv", &env(variables))]);
        assert_eq!(found.first().map(String::as_str), kernel, "{default} {variables}");
        assert!(found.len() < 2);
    }
}

#[test]
fn fedoras_grub_takes_in_loader_entries() {
    let entry = |version: &str| {
        format!(
            "title Fedora ({version})\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /i\noptions $kernelopts\n"
        )
    };
    let cfg =
        "set default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\nmenuentry 'UEFI Firmware Settings' {\n fwsetup\n}\n";
    let start = |variables: &str| {
        defaults(&[
            ("/boot/grub2/grub.cfg", cfg),
            ("/boot/grub2/grubenv", &env(variables)),
            ("/boot/loader/entries/m-6.9.1-200.fc40.x86_64.conf", &entry("6.9.1")),
            ("/boot/loader/entries/m-6.10.3-200.fc40.x86_64.conf", &entry("6.10.3")),
            ("/boot/loader/entries/m-0-rescue.conf", &entry("0-rescue")),
        ])
    };
    assert_eq!(start(""), ["/vmlinuz-6.10.3"]);
    assert_eq!(start("saved_entry=m-6.9.1-200.fc40.x86_64\n"), ["/vmlinuz-6.9.1"]);
    assert_eq!(start("saved_entry=1\n"), ["/vmlinuz-6.9.1"]);
    assert_eq!(start("saved_entry=Fedora (0-rescue)\n"), ["/vmlinuz-0-rescue"]);
    assert_eq!(start("saved_entry=gone\n"), ["/vmlinuz-6.10.3"]);
}

#[test]
fn systemd_boot_sorts_as_its_specification_says() {
    let entry = |key: &str, version: &str| format!("title x\n{key}version {version}\nlinux /{version}\n");
    let entries = [
        ("/efi/loader/entries/a.conf", entry("", "9")),
        ("/efi/loader/entries/b.conf", entry("sort-key b\n", "7")),
        ("/efi/loader/entries/c+3-1.conf", entry("sort-key a\nmachine-id 1\n", "6.9")),
        ("/efi/loader/entries/d.conf", entry("sort-key a\nmachine-id 1\n", "6.10")),
    ];
    let start = |config: &str| {
        let mut files: Vec<(&str, &str)> = entries.iter().map(|(path, text)| (*path, text.as_str())).collect();
        files.push(("/efi/loader/loader.conf", config));
        defaults(&files)
    };
    assert_eq!(start("timeout 3\n"), ["/6.10"]);
    assert_eq!(start("default b.conf\n"), ["/7"]);
    assert_eq!(start("default C*\n"), ["/6.9"]);
    assert_eq!(start("#default b\ndefault\tnothing\n"), ["/6.10"]);
    assert!(start("default @saved\n").is_empty());
    assert_eq!(start("default [\n"), ["/6.10"]);
}

#[test]
fn unified_images_are_entries() {
    let fs = MemoryFs::default();
    let sections: &[(&str, &[u8])] = &[
        (".osrel", b"ID=arch\nPRETTY_NAME=\"Arch Linux\"\n"),
        (".cmdline", b"root=UUID=1 ro\n\0"),
        (".uname", b"6.9.1-arch1-1"),
        (".linux", b"kernel"),
    ];
    fs.add_file("/efi/EFI/Linux/arch-linux.efi", program(sections, true)).unwrap();
    fs.add_file("/efi/EFI/Linux/no.efi", "text").unwrap();
    fs.add_file("/efi/loader/loader.conf", "").unwrap();
    let (loaders, entries) = read(&Tree::new(Arc::new(fs)));
    assert_eq!(loaders.iter().filter(|loader| loader.kind == BootloaderKind::Uki).count(), 2);
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((entry.title.as_deref(), entry.version.as_deref()), (Some("Arch Linux"), Some("6.9.1-arch1-1")));
    assert_eq!((entry.options.as_str(), entry.default), ("root=UUID=1 ro", true));
    assert_eq!((entry.id.as_deref(), entry.kernel.as_str()), (Some("arch-linux"), "/efi/EFI/Linux/arch-linux.efi"));
}

#[test]
fn the_old_loaders_start_what_they_are_told() {
    let legacy =
        "default=1\ntimeout=5\ntitle CentOS (new)\n kernel /new ro\n initrd /i\ntitle CentOS (old)\n kernel /old ro\n";
    assert_eq!(defaults(&[("/boot/grub/menu.lst", legacy)]), ["/old"]);
    let saved = legacy.replace("default=1", "default saved");
    assert_eq!(defaults(&[("/boot/grub/menu.lst", &saved)]), ["/new"]);
    assert_eq!(defaults(&[("/boot/grub/menu.lst", &saved), ("/boot/grub/default", "1\n#\n")]), ["/old"]);
    assert_eq!(defaults(&[("/boot/efi/EFI/redhat/grub.conf", legacy)]), ["/old"]);
    let extlinux = "DEFAULT menu.c32\nLABEL a\n LINUX /a\nLABEL b\n MENU LABEL Alpine ^b\n MENU DEFAULT\n LINUX /b\n";
    assert_eq!(defaults(&[("/boot/extlinux.conf", extlinux)]), ["/b"]);
    assert_eq!(defaults(&[("/boot/extlinux.conf", &extlinux.replace("menu.c32", "a"))]), ["/a"]);
    let lilo = "boot=/dev/sda\nroot=/dev/sda1\nappend=\"quiet\"\nimage=/boot/vmlinuz\n label=linux\n initrd=/boot/initrd.gz\n\
                image = /boot/old\n label = old\n root=/dev/sdb1\n append=\"a b\"\nother=/dev/sda2\n label=dos\n";
    let (loaders, entries) = read(&tree(&[("/etc/lilo.conf", lilo)]));
    assert_eq!(loaders[0].kind, BootloaderKind::Lilo);
    let short: Vec<_> =
        entries.iter().map(|entry| (entry.id.as_deref(), entry.options.as_str(), entry.default)).collect();
    assert_eq!(short, [(Some("linux"), "root=/dev/sda1 quiet", true), (Some("old"), "root=/dev/sdb1 a b", false)]);
    assert_eq!(
        (entries[0].initrds.as_slice(), entries[1].kernel.as_str()),
        (["/boot/initrd.gz".to_owned()].as_slice(), "/boot/old")
    );
    assert_eq!(defaults(&[("/etc/lilo.conf", &format!("default=old\n{lilo}"))]), ["/boot/old"]);
}

#[test]
fn tells_what_firmware_can_start() {
    let fs = MemoryFs::default();
    for (path, signed) in [
        ("/boot/efi/EFI/BOOT/BOOTX64.EFI", true),
        ("/boot/efi/EFI/debian/shimx64.efi", true),
        ("/boot/efi/EFI/debian/grubx64.efi", false),
        ("/boot/efi/EFI/debian/mmx64.efi", true),
        ("/boot/efi/EFI/systemd/systemd-bootx64.efi", false),
        ("/boot/efi/EFI/Microsoft/bootmgfw.efi", true),
    ] {
        fs.add_file(path, program(&[(".text", b"x")], signed)).unwrap();
    }
    fs.add_file("/boot/efi/EFI/debian/BOOTX64.CSV", "x").unwrap();
    let tree = Tree::new(Arc::new(fs));
    let found = efi_programs(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap();
    let short: Vec<_> = found.iter().map(|it| (it.kind, it.signed)).collect();
    use EfiProgramKind::{Fallback, Grub, MokManager, Shim, SystemdBoot, Windows};
    let wanted =
        [(Fallback, true), (Windows, true), (Grub, false), (MokManager, true), (Shim, true), (SystemdBoot, false)];
    assert_eq!(short, wanted);
}

#[test]
fn as_many_efi_programs_as_the_limit() {
    let limit = limits::MAX_EFI_PROGRAMS;
    for (count, noted) in [(limit - 1, 0), (limit, 0), (limit + 1, 1)] {
        let fs = MemoryFs::default();
        for index in 0..count {
            fs.add_file(&format!("/efi/EFI/x/{index}.efi"), "").unwrap();
        }
        let tree = Tree::new(Arc::new(fs));
        let mut reader = Reader { tree: &tree, notes: Vec::new() };
        assert_eq!(efi_programs(&mut reader).unwrap().len(), count.min(limit));
        assert_eq!(reader.notes.len(), noted);
    }
}

#[test]
fn odd_configurations_are_only_odd() {
    let deep =
        "submenu x {\n".repeat(100) + "menuentry y {\nlinux /k\n" + &"}\n".repeat(200) + "menuentry z {\nlinux /l\n}\n";
    for text in [
        "",
        "}",
        "}}}\n",
        "menuentry",
        "submenu {",
        "menuentry '",
        "set default=",
        "set default=\"${x\"",
        "set",
        "default",
        "default=",
        "label",
        "title",
        "blscfg",
        "image=",
        "image",
        "=",
        "linux",
        "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        &deep,
    ] {
        for path in [
            "/boot/grub/grub.cfg",
            "/boot/grub/menu.lst",
            "/boot/extlinux.conf",
            "/etc/lilo.conf",
            "/efi/loader/loader.conf",
        ] {
            let (_, entries) = read(&tree(&[(path, text)]));
            assert!(entries.iter().filter(|entry| entry.default).count() <= 1, "{path}: {text}");
        }
    }
    let (_, entries) = read(&tree(&[("/boot/grub/grub.cfg", &deep)]));
    assert_eq!(entries.iter().map(|entry| entry.place.len()).collect::<Vec<_>>(), [8, 1]);
}

#[test]
fn finds_files_where_the_boot_loader_would() {
    let root = MemoryFs::default();
    root.add_file("/boot/vmlinuz-6", "").unwrap();
    root.add_link("/vmlinuz", "boot/vmlinuz-6").unwrap();
    let tree = Tree::new(Arc::new(root));
    for path in [
        "/boot/vmlinuz-6",
        "/vmlinuz-6",
        "/vmlinuz",
        "(hd0,1)/boot/vmlinuz-6",
        "/@/boot/vmlinuz-6",
        "/@/x/boot/vmlinuz-6",
    ] {
        let found = locate(&tree, path).unwrap().unwrap();
        assert_eq!(found.path, b"/boot/vmlinuz-6", "{path}");
    }
    assert!(locate(&tree, "/nothing").unwrap().is_none());
}

/// What there is to boot: config, title, kernel, initramfs images, options, a star for the default.
fn menu(files: Files<'_>) -> Vec<String> {
    let (_, entries) = read(&tree(files));
    let line = |entry: BootEntry| {
        let star = if entry.default { "*" } else { "" };
        let (title, kernel, initrds) = (entry.title.unwrap_or_default(), entry.kernel, entry.initrds.join("+"));
        format!("{star}{title}|{kernel}|{initrds}|{}", entry.options)
    };
    entries.into_iter().map(line).collect()
}

#[test]
fn refinds_entries_and_their_submenus() {
    let conf = "timeout 20\ndefault_selection \"Arch\"\n# menuentry no {\nmenuentry \"Windows\" {\n  loader \\EFI\\Microsoft\\Boot\\bootmgfw.efi\n}\n\
        menuentry \"Arch Linux\" {\n  icon /x.png\n  volume \"V\"\n  loader /boot/vmlinuz-linux\n  initrd /boot/initramfs-linux.img\n\
          options \"root=/dev/sda2 rw\"\n  submenuentry \"fallback\" {\n    initrd /boot/fallback.img\n    add_options \"single\"\n  }\n}\n\
        menuentry Old {\n loader /old\n disabled\n}\n";
    assert_eq!(
        menu(&[("/boot/efi/EFI/refind/refind.conf", conf)]),
        [
            "*Arch Linux|/boot/vmlinuz-linux|/boot/initramfs-linux.img|root=/dev/sda2 rw",
            "fallback|/boot/vmlinuz-linux|/boot/fallback.img|root=/dev/sda2 rw single",
        ]
    );
    let linux = "# made by hand\n\"Boot with standard options\"  \"ro root=UUID=1\"\n\"Single\" \"ro single\"\n";
    assert_eq!(
        menu(&[("/boot/refind_linux.conf", linux)]),
        ["Boot with standard options|||ro root=UUID=1", "Single|||ro single"]
    );
}

#[test]
fn limines_old_and_new_configurations() {
    let new = "timeout: 5\ndefault_entry: 2\n/+Arch\n//Linux\nprotocol: linux\npath: boot():/vmlinuz-linux#00ff\ncmdline: root=/dev/sda2 rw\n\
        module_path: boot():/ucode.img\nmodule_path: boot():/initramfs.img\n//Other\nprotocol: efi\npath: boot():/x.efi\n";
    let files: Files<'_> = &[("/boot/limine.conf", new), ("/boot/vmlinuz-linux", "k")];
    assert_eq!(menu(files), ["*Linux|boot():/vmlinuz-linux|boot():/ucode.img+boot():/initramfs.img|root=/dev/sda2 rw"]);
    let old = "TIMEOUT=5\n:Arch\nPROTOCOL=linux\nKERNEL_PATH=boot:///vmlinuz-linux\nCMDLINE=root=/dev/sda2 rw\nMODULE_PATH=boot:///i.img\n";
    assert_eq!(
        menu(&[("/boot/limine/limine.cfg", old)]),
        ["*Arch|boot:///vmlinuz-linux|boot:///i.img|root=/dev/sda2 rw"]
    );
    for path in ["boot():/vmlinuz-linux", "boot:///vmlinuz-linux", "(hd0,1)/vmlinuz-linux"] {
        assert!(locate(&tree(files), path).unwrap().is_some(), "{path}");
    }
}

#[test]
fn zipls_sections() {
    let conf = "[defaultboot]\ndefault=old\ntarget=/boot\n[linux]\n\timage=/boot/vmlinuz-6,0x10000\n\tramdisk=/boot/initrd-6\n\
        \tparameters=\"root=/dev/dasda1 ro\"\n[old]\nimage = /boot/vmlinuz-5\nparameters=x\n[dump]\ndumpto=/dev/dasdb1\n\
        :menu\n1=linux\nimage=/no\n";
    assert_eq!(
        menu(&[("/etc/zipl.conf", conf)]),
        ["linux|/boot/vmlinuz-6|/boot/initrd-6|root=/dev/dasda1 ro", "*old|/boot/vmlinuz-5||x"]
    );
}

#[test]
fn hostile_configurations_are_bounded() {
    let long = "x".repeat(1 << 18);
    let places = [
        "/boot/grub/grub.cfg",
        "/boot/grub/menu.lst",
        "/boot/extlinux/extlinux.conf",
        "/etc/lilo.conf",
        "/etc/zipl.conf",
        "/boot/refind_linux.conf",
        "/efi/EFI/refind/refind.conf",
        "/boot/limine.conf",
        "/limine.cfg",
        "/boot/loader/loader.conf",
        "/boot/loader/entries/a.conf",
    ];
    for place in places {
        for text in [
            String::new(),
            "\0\0\0\u{fffd}\n\0=\0\n[\n]\n".to_owned(),
            format!("default={long}\ndefault {long}\ndefault_entry: {long}\ndefault_selection {long}\n"),
            format!("menuentry '{long}' {{\nlinux {long} {long}\ninitrd {long}\nloader {long}\noptions {long}\n}}\n"),
            format!(
                "label {long}\nkernel {long}\nappend {long}\ntitle {long}\nimage={long}\nlabel={long}\nappend={long}\n"
            ),
            "menuentry a {\n".repeat(2000),
            "submenuentry a {\n".repeat(2000) + &"}\n".repeat(4000),
            "menuentry a {\nlinux /k\nloader /k\n}\nlabel a\nlinux /k\ntitle a\nkernel /k\nimage=/k\n".repeat(1000),
            "/a\nprotocol: linux\npath: k\n:b\nPROTOCOL=linux\nPATH=k\n[c]\nimage=k\n\"d\" \"e\"\n".repeat(1000),
            "\"\"\n\"\" \"\n\"a\" \"b\n\\\n'\n".to_owned(),
            "set default=\"${default}\"\nset default=$default\ndefault=99999999999999999999\ndefault_entry: -1\n"
                .to_owned(),
            "\u{1b}[2J\u{7}linux /k\u{1b}]0;x\u{7}\nlinux /k\n".to_owned(),
        ] {
            let (loaders, entries) = read(&tree(&[(place, &text)]));
            assert!(loaders.len() <= 1 && entries.len() <= limits::MAX_BOOT_ENTRIES, "{place}");
            for entry in &entries {
                let words = [entry.title.as_deref(), entry.id.as_deref(), Some(&entry.options)];
                assert!(words.into_iter().flatten().all(|word| word.len() <= 4096 * 4), "{place}");
            }
        }
    }
}
