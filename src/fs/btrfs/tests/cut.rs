//! The power is cut at any moment of writing: the file system is then that of one transaction, the last one that was stored or the
//! one before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use super::*;
use crate::disk::{Fingerprint, SectorSize, Visit};
use crate::fs::Attributes;

/// A disk that remembers what it was told, in order.
#[derive(Debug)]
struct Recorder {
    memory: Arc<Checked<Memory>>,
    calls: Mutex<Vec<Call>>,
}

#[derive(Clone, Debug)]
enum Call {
    Write(u64, Vec<u8>),
    Flush,
}

impl Recorder {
    fn new(image: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { memory: Checked::wrap(Memory::new(image)), calls: Mutex::default() })
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Disk for Recorder {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn sector_size(&self) -> SectorSize {
        self.memory.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.memory.read_at(buf, offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.memory.extents(range, visit)
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        self.memory.fingerprint()
    }

    fn describe(&self) -> (&'static str, String) {
        ("recorder", String::new())
    }
}

impl DiskMut for Recorder {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.note(Call::Write(offset, data.to_vec()));
        self.memory.write_at(data, offset)
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        self.note(Call::Write(range.start, vec![0; (range.end - range.start) as usize]));
        self.memory.zero(range)
    }

    fn flush(&self) -> Result<()> {
        self.note(Call::Flush);
        self.memory.flush()
    }
}

/// Everything that can be read, as one digest.
fn digest(fs: &Btrfs) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut pending = vec![fs.root()];
    while let Some(inode) = pending.pop() {
        let stat = fs.stat(inode).unwrap();
        hasher.update(format!("{stat:?} {:?}", fs.xattrs(inode).unwrap()).as_bytes());
        match stat.kind {
            FileKind::Directory => fs
                .read_dir(inode, 0, &mut |entry| {
                    hasher.update(&entry.name);
                    pending.push(entry.inode);
                    ControlFlow::Continue(())
                })
                .unwrap(),
            FileKind::Regular => {
                let mut content = vec![0; stat.size as usize];
                assert_eq!(fs.read_at(inode, &mut content, 0).unwrap(), content.len());
                hasher.update(&content);
            }
            _ => drop(hasher.update(&fs.read_link(inode).unwrap())),
        }
    }
    fs.free_ranges(&mut |range| {
        hasher.update(format!("{range:?}").as_bytes());
        ControlFlow::Continue(())
    })
    .unwrap();
    hasher.finalize()
}

/// One transaction of many kinds of changes; each frees what the one before it used.
fn change(fs: &Btrfs, round: usize) -> Result<()> {
    let (writer, root, with) = (fs.writer()?, fs.root(), Attributes::default());
    let bytes = [round as u8 + 1; 9000];
    for name in ["long", "short"] {
        if let Some(file) = fs.lookup(root, name.as_bytes())? {
            writer.replace(file, &bytes.repeat(1 + round % 3))?;
            writer.append(file, &bytes)?;
        }
    }
    let dir = fs.lookup(root, b"dir")?.ok_or_else(|| corrupt("not there"))?;
    for index in round * 12..round * 12 + 12 {
        writer.remove(dir, format!("{index}-a-name-that-takes-some-room").as_bytes())?;
        writer.create(root, format!("new-{index}").as_bytes(), &with, &bytes[..index * 40])?;
    }
    let new = writer.create_dir(root, format!("dir-{round}").as_bytes(), &with)?;
    writer.rename(root, format!("new-{}", round * 12).as_bytes(), new, b"moved")?;
    writer.set_xattr(new, b"user.x", &bytes[..300])?;
    writer.sync()
}

#[test]
fn after_a_cut_at_any_moment_one_transaction_is_there_as_a_whole() {
    let first = image();
    let recorder = Recorder::new(first.clone());
    let fs = Btrfs::open_mut(recorder.clone()).unwrap();
    let generation = |fs: &Btrfs| fs.core().store.sb.generation;
    let mut states = BTreeMap::from([(generation(&fs), digest(&fs))]);
    for round in 0..2 {
        change(&fs, round).unwrap();
        states.insert(generation(&fs), digest(&fs));
    }
    drop(fs);
    let calls = recorder.calls.lock().unwrap().clone();
    let flushes = calls.iter().filter(|call| matches!(call, Call::Flush)).count();
    assert!(calls.len() > 30 && flushes >= 4, "{} {flushes}", calls.len());
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let (mut stable, mut since) = (first, Vec::new());
    let mut last = states.keys().next().copied().unwrap();
    for (number, call) in calls.iter().enumerate() {
        // What was written since the last flush may be there, or not, or in part; but a superblock is written whole or not at all.
        let how = number % 3;
        let mut image = stable.clone();
        for (offset, bytes) in &since {
            let whole: &Vec<u8> = bytes;
            let len = match (how, next(4)) {
                (0, _) | (1, 0) | (2, 0 | 1) => whole.len(),
                (2, 2) if *offset != SUPER as u64 => next(whole.len() as u64 / 512 + 1) as usize * 512,
                _ => 0,
            };
            put(&mut image, *offset as usize, &whole[..len]);
        }
        let fs = open(&image).unwrap_or_else(|error| panic!("{number} {how}: {error}"));
        let found = generation(&fs);
        assert!(found == last || found == last + 1, "{number} {how}: {found} {last}");
        assert!(states.get(&found) == Some(&digest(&fs)), "{number} {how}: transaction {found} is not as it was");
        drop(fs);
        if number % 29 == 0 {
            assert_clean(&image);
        }
        match call {
            Call::Write(offset, bytes) => since.push((*offset, bytes.clone())),
            Call::Flush => {
                for (offset, bytes) in since.drain(..) {
                    put(&mut stable, offset as usize, &bytes);
                }
                last = le64(&stable, SUPER + 0x48);
            }
        }
    }
    assert_eq!(Some(&last), states.keys().next_back());
}
