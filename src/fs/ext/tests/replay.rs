//! Journals that debugfs writes, and journals that nobody should have written.

use super::*;
use crate::disk::bytes::{be32, put, put_be32, put32};

/// Lets debugfs write a journal: `script` has its journal commands, between opening and closing it.
fn journalled(options: &[&str], open: &str, script: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(dir.path().join("image"), make(options, 8192)).unwrap();
    // Two blocks for two places; the second starts with the journal's own magic number.
    let mut content = vec![0xab; 2048];
    put_be32(&mut content, 1024, journal::MAGIC);
    std::fs::write(dir.path().join("content"), content).unwrap();
    let script = script.replace("CONTENT", &path("content"));
    std::fs::write(dir.path().join("script"), format!("{open}\n{script}\njc\n")).unwrap();
    run("debugfs", &["-w", "-f", &path("script"), &path("image")]);
    std::fs::File::options().read(true).open(path("image")).map(|mut file| read_all(&mut file)).unwrap()
}

const EXT4: &[&str] = &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"];

fn block(fs: &Ext, number: u64) -> Vec<u8> {
    fs.reading(|view| Ok(view.block(number)?.to_vec())).unwrap()
}

fn first_copy() -> Vec<u8> {
    vec![0xab; 1024]
}

#[test]
fn every_kind_of_journal_is_replayed_as_e2fsck_does() {
    let kinds: &[(&[&str], &str)] = &[
        (EXT4, "jo"),
        // debugfs gets the checksum of its second transaction wrong here, so that the replay ends before it.
        (EXT4, "jo -c"),
        (&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit"], "jo"),
        (&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit"], "jo -c -v 2"),
        (&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit"], "jo -c -v 3"),
        (&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,^64bit"], "jo -c -v 2"),
        (&["-t", "ext3", "-b", "1024"], "jo"),
    ];
    for (options, open) in kinds {
        let image = journalled(options, open, "jw -b 7000,7100 CONTENT\njw -r 7100\njw -b 7200-7201 CONTENT");
        let theirs = checked(&image);
        for fs in [Ext::open(disk(image.clone())).unwrap(), Ext::open_mut(disk(image)).unwrap()] {
            assert!(fs.facts().dirty);
            assert!(block(&fs, 7000) == first_copy());
            for number in [7000, 7100, 7200, 7201] {
                let at = usize::try_from(number * 1024).unwrap();
                assert!(block(&fs, number) == theirs[at..at + 1024], "{options:?} {open} block {number}");
            }
        }
    }
}

/// The image after e2fsck has replayed its journal.
fn checked(image: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, image).unwrap();
    run("e2fsck", &["-fy", path.to_str().unwrap()]);
    std::fs::File::options().read(true).open(&path).map(|mut file| read_all(&mut file)).unwrap()
}

#[test]
fn a_block_logged_again_after_its_revocation_is_replayed() {
    let image = journalled(EXT4, "jo", "jw -b 7000 CONTENT\njw -r 7000\njw -b 7000 CONTENT");
    assert!(block(&Ext::open(disk(image)).unwrap(), 7000) == first_copy());
}

#[test]
fn replaying_leaves_an_empty_journal_and_no_flag() {
    let image = journalled(EXT4, "jo", "jw -b 7000 CONTENT");
    let memory = disk(image);
    drop(Ext::open_mut(memory.clone()).unwrap());
    let again = Ext::open_mut(memory.clone()).unwrap();
    assert!(!again.facts().dirty && !again.facts().features.iter().any(|name| name == "needs_recovery"));
    drop(again);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, memory.inner().snapshot()).unwrap();
    let text = run("e2fsck", &["-fn", path.to_str().unwrap()]);
    assert!(!text.contains("? no"), "{text}");
}

/// Where the journal's superblock is.
fn header_at(image: &[u8]) -> usize {
    log_at(image, 0)
}

/// Where block `logical` of the journal is.
fn log_at(image: &[u8], logical: u32) -> usize {
    let sb = Superblock::parse(&image[1024..2048], image.len() as u64).unwrap();
    let blocks = Blocks::new(disk(image.to_vec()), None, &sb);
    let view = View::new(&blocks, Arc::new(sb));
    let node = view.node(8).unwrap();
    usize::try_from(view.physical(&node, u64::from(logical)).unwrap().unwrap() * 1024).unwrap()
}

/// An image whose journal is opened for reading as it is: the refusal that the writer gives.
fn refusal(image: &[u8]) -> &'static str {
    let _ = survive(image);
    let fs = Ext::open_mut(disk(image.to_vec())).unwrap();
    assert!(fs.facts().dirty);
    fs.writer().map_or_else(|error| error.code(), |_| "none")
}

fn dirty() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| journalled(EXT4, "jo", "jw -b 7000 CONTENT\njw -b 7100 CONTENT")).clone()
}

#[test]
fn hostile_fields_of_the_journals_superblock() {
    let image = dirty();
    let at = header_at(&image);
    assert_eq!(be32(&image, at), journal::MAGIC);
    let fields = [
        (0x0, 0),
        (0x4, 9),
        (0xc, 0),
        (0xc, 4096),
        (0x10, 0),
        (0x10, u32::MAX),
        (0x14, 0),
        (0x14, u32::MAX),
        (0x1c, u32::MAX),
        (0x28, 0x8000_0000),
        (0x28, 0x10),
    ];
    for (field, value) in fields {
        let mut image = image.clone();
        put_be32(&mut image, at + field, value);
        assert_eq!(refusal(&image), "ext.journal", "{field:x} {value:x}");
    }
}

#[test]
fn hostile_journal_of_descriptors_only() {
    let mut image = dirty();
    let at = header_at(&image);
    let (first, max) = (be32(&image, at + 0x14), be32(&image, at + 0x10));
    let sequence = be32(&image, at + 0x18);
    // Every block of the ring says that it is a descriptor of this transaction, with no last tag; none commits.
    let fs = Ext::open(disk(image.clone())).unwrap();
    let places: Vec<usize> = fs
        .reading(|view| {
            let node = view.node(8)?;
            (u64::from(first)..u64::from(max))
                .map(|block| Ok(view.physical(&node, block)?.unwrap() as usize * 1024))
                .collect()
        })
        .unwrap();
    drop(fs);
    for kind in [1, 2, 5, 7] {
        for place in &places {
            put_be32(&mut image, *place, journal::MAGIC);
            put_be32(&mut image, place + 4, kind);
            put_be32(&mut image, place + 8, sequence);
        }
        let _ = survive(&image);
    }
}

#[test]
fn hostile_tags_and_revocations() {
    let image = dirty();
    let at = header_at(&image);
    let descriptor = log_at(&image, be32(&image, at + 0x1c));
    assert_eq!(be32(&image, descriptor + 4), 1);
    for block in [8192, u32::MAX] {
        let mut image = image.clone();
        put_be32(&mut image, descriptor + 12, block);
        assert_eq!(refusal(&image), "ext.journal");
    }
    // A list of revoked blocks that is longer than its block.
    let mut revoke = image;
    put_be32(&mut revoke, descriptor + 4, 5);
    put_be32(&mut revoke, descriptor + 12, 5000);
    assert_eq!(refusal(&revoke), "ext.journal");
}

#[test]
fn hostile_journal_over_the_superblock() {
    // A replay that would change the geometry, or make the superblock unreadable.
    let dir = tempfile::tempdir().unwrap();
    let superblock = dir.path().join("superblock");
    for (field, value) in [(0x20, 4096), (0x4, 8000), (0x38, 0)] {
        let mut bytes = make(EXT4, 8192)[1024..2048].to_vec();
        put32(&mut bytes, field, value);
        std::fs::write(&superblock, bytes).unwrap();
        let image = journalled(EXT4, "jo", &format!("jw -b 1 {}", superblock.to_str().unwrap()));
        let memory = disk(image.clone());
        let fs = Ext::open_mut(memory.clone()).unwrap();
        assert!(fs.writer().is_err());
        fs.free_ranges(&mut |range| panic!("{range:?} is not free")).unwrap();
        assert!(memory.inner().snapshot() == image, "nothing was written");
    }
}

#[test]
fn hostile_journal_inode_with_holes() {
    let mut image = dirty();
    let fs = Ext::open(disk(image.clone())).unwrap();
    let table = fs.reading(|view| Ok(view.group(0)?.inode_table())).unwrap();
    let size = fs.reading(|view| Ok(view.sb.inode_size)).unwrap();
    drop(fs);
    let map = usize::try_from(table).unwrap() * 1024 + 7 * size + 0x28;
    // The extent starts one block later.
    put32(&mut image, map + 12, 1);
    assert_ne!(refusal(&image), "none");
    put(&mut image, map, &[0; 60]);
    assert_ne!(refusal(&image), "none");
}

#[test]
fn a_logged_block_with_a_wrong_checksum_refuses_the_whole_replay() {
    let mut image =
        journalled(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit"], "jo -c -v 3", "jw -b 7000 CONTENT");
    let at = header_at(&image);
    let logged = log_at(&image, be32(&image, at + 0x1c) + 1);
    image[logged + 9] ^= 1;
    let before = image.clone();
    assert_eq!(refusal(&image), "ext.journal");
    let memory = disk(image);
    drop(Ext::open_mut(memory.clone()).unwrap());
    assert!(memory.inner().snapshot() == before, "nothing was written");
}
