//! A guest's initramfs in every compression that kernels know: packed anew by the programs that guests use for it, migrated, booted.
//! That it has no virtio, so that it does not boot as it is, is tested on the guests that it is taken from.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::guest::Guest;
use crate::support::{Bus, Lab, Mounted};

macro_rules! packed {
    ($($name:ident: $layout:literal, $($word:literal)+;)*) => {
        $(
            #[test]
            #[ignore = "needs guests of many layouts: make zoo"]
            fn $name() {
                boots_from($layout, &[$($word),+]);
            }
        )*
    };
}

// `plain` has initramfs-tools. How the guests are made themselves is not here again: zstd and lz4 of initramfs-tools, gzip and zstd of
// dracut, xz of dracut without systemd.
packed! {
    gzip: "plain", "gzip" "-9n";
    bzip2: "plain", "bzip2" "-9";
    lzma: "plain", "xz" "--format=lzma" "-6";
    xz: "plain", "xz" "--check=crc32" "-6";
    lzo: "plain", "lzop" "-7";
    not_packed: "plain", "cat";
    lz4_of_dracut: "dracut", "lz4" "-l" "-9";
    lzo_of_dracut: "dracut", "lzop" "-7";
    bzip2_of_dracut: "dracut", "bzip2" "-9";
}

fn boots_from(layout: &str, packer: &[&str]) {
    let (lab, guest) = (Lab::new(), Guest::of(layout));
    let source = guest.copies(&lab);
    let mounted = Mounted::part(&source[0], 1, "rw", &lab.folder("root"));
    let image = initramfs(&mounted.path().join("boot"));
    let plain = lab.path("initramfs");
    pipe(unpacker(&image), &image, &plain);
    // Into the same file, as the guest's own generator would do it.
    pipe(packer, &plain, &image);
    mounted.close();

    let result = guest.migrated_only(&lab, &source);
    guest.is_up_on_virtio(&result, "", &[Bus::VirtioBlk]);
}

/// The only image in a folder.
fn initramfs(boot: &Path) -> PathBuf {
    let entries = std::fs::read_dir(boot).expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_image =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"initrd.img-"));
    let found: Vec<_> = entries.filter(is_image).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// What unpacks an image, by how it begins. None of these has a part that is not packed.
fn unpacker(image: &Path) -> &'static [&'static str] {
    match std::fs::read(image).expect("an image").get(..4) {
        Some([0x28, 0xB5, 0x2F, 0xFD]) => &["zstd", "-dc"],
        Some([0x1F, 0x8B, ..]) => &["gzip", "-dc"],
        begin => panic!("an image that begins with {begin:x?}"),
    }
}

fn pipe(words: &[&str], from: &Path, to: &Path) {
    let (from, to) = (File::open(from).expect("a file"), File::create(to).expect("a file"));
    let program = Command::new(words[0]).args(&words[1..]).stdin(from).stdout(to).stderr(Stdio::inherit()).status();
    let status =
        program.unwrap_or_else(|error| panic!("{}, which scripts/install-deps.sh installs: {error}", words[0]));
    assert!(status.success(), "{words:?} ended with {status}");
}
