//! Every bound in one place: its name, its value, the reason for it. Each has a test at, below and above it, which names it.

/// Largest virtual size of any disk: 64 PiB keeps every sum of offsets far from overflow and is above every format's own limit.
pub const MAX_DISK_LEN: u64 = 64 << 50;

/// Layers in one backing chain, the image itself included. crosvm stops at 10, libvirt at 200; VMware allows 32 snapshots
/// but advises 2 to 3.
pub const MAX_CHAIN_DEPTH: u32 = 16;

/// Largest decoded unit (grain, compressed cluster). qcow2's largest cluster is 2 MiB; bounds each decoder's output.
pub const MAX_UNIT: usize = 2 << 20;

/// Default memory budget in bytes. The process stays within the budget + 64 MiB.
pub const DEFAULT_BUDGET: u64 = 256 << 20;

/// Smallest memory budget that still lets every stage make progress.
pub const MIN_BUDGET: u64 = 64 << 20;

/// Bytes that the overlay counts for one entry in its maps: key, slot and the map's own overhead, rounded up.
pub const OVERLAY_ENTRY: u64 = 64;

/// Longest name of another file in an image: Linux's `PATH_MAX`, beyond which nothing can be opened.
pub const MAX_REFERENCE: usize = 4096;

/// Partitions listed of one disk. Linux gives 256 minor numbers to a disk.
pub const MAX_PARTITIONS: usize = 256;

/// Bytes of a GPT's entry array: 8192 entries of the usual 128 bytes; Linux stops at what one allocation holds.
pub const MAX_GPT_ENTRIES: u64 = 1 << 20;

/// Free ranges kept of all volumes: 16 MiB of memory. A full 1 TiB file system with a free range a megabyte has as many.
pub const MAX_FREE_RANGES: usize = 1 << 20;

/// Entries of a qcow2 L1 table: 32 MiB, which is qemu's own bound and covers 2 PiB with the default cluster size.
pub const MAX_QCOW2_L1_ENTRIES: u32 = (32 << 20) / 8;

/// Bytes of a qcow2 backing file name: the specification's own bound.
pub const MAX_QCOW2_BACKING_NAME: u32 = 1023;

/// Symbolic links followed while walking one guest path; Linux stops at 40 too.
pub const MAX_GUEST_LINKS: usize = 40;

/// Bytes of one guest path or link target: Linux's `PATH_MAX`.
pub const MAX_GUEST_PATH: usize = 4096;

/// Entries of one guest directory that a listing keeps. `/usr/bin` of a large desktop has some 5,000.
pub const MAX_GUEST_DIR_ENTRIES: usize = 1 << 16;

/// Directories of a guest that one walk goes into. A file server with a hundred million files has fewer.
pub const MAX_GUEST_DIRS: usize = 1 << 22;

/// Bytes of one guest configuration file. The largest in the field, a `grub.cfg` with dozens of kernels, is below 256 KiB.
pub const MAX_GUEST_CONFIG: u64 = 1 << 20;

/// Boot entries considered in all of a guest's boot loaders together. Distributions keep two to five kernels, with two or
/// three entries each.
pub const MAX_BOOT_ENTRIES: usize = 512;

/// Programs on EFI system partitions that are told. Distributions have up to ten in two directories, firmware tools some dozens.
pub const MAX_EFI_PROGRAMS: usize = 256;

/// Kernels considered in one guest. Each may get drivers, which are held in memory until they are written.
pub const MAX_KERNELS: usize = 32;

/// Network interfaces considered in one guest; VMware allows 10 cards.
pub const MAX_NICS: usize = 64;

/// Addresses, gateways, name servers, domains and members kept of one network interface, each. Real ones have a handful.
pub const MAX_NIC_VALUES: usize = 64;

/// Lines of a guest's `/etc/crypttab` that are told. A machine has a few encrypted volumes.
pub const MAX_CRYPTTAB: usize = 256;

/// Files that a guest's network configuration may pull in with `source` lines.
pub const MAX_SOURCED_FILES: usize = 256;

/// Entries in one VMDK grain table: 512 in every file seen; qemu refuses more too.
pub const MAX_VMDK_GTES: u64 = 512;

/// Longest VMDK descriptor in bytes. Real ones have a few kilobytes, some 80 an extent; qemu reads at most 1 MiB.
pub const MAX_VMDK_DESCRIPTOR: usize = 1 << 20;

/// Extents of one VMDK. Each is an open file and processes may usually open 1,024; 2 GiB extents make 2 TiB.
pub const MAX_VMDK_EXTENTS: usize = 1000;

/// Grain tables of one VMDK, all extents together: 8 MiB of directory, enough for 64 TiB in grains of 64 KiB.
pub const MAX_VMDK_TABLES: u64 = 2 << 20;

/// Bytes of one line of a guest's console; what is longer is judged in pieces. The kernel's own lines have at most 1,024.
pub const MAX_CONSOLE_LINE: usize = 4096;

/// Bytes of a guest's console that a boot test keeps: a guest may print for ever. A verbose boot prints about 200 KiB.
pub const MAX_CONSOLE_LOG: u64 = 64 << 20;

/// Bytes kept of QEMU's own messages, the last ones: enough for every error it prints before it gives up.
pub const MAX_QEMU_MESSAGE: usize = 4096;

/// Bytes that all files of one initramfs decode to. The largest of distributions, with all firmware, has some 500 MiB.
pub const MAX_INITRAMFS_UNPACKED: u64 = 2 << 30;

/// Bytes of an EFI program that is copied to where firmware looks for one. GRUB with all its modules has some 5 MiB.
pub const MAX_EFI_COPY: u64 = 64 << 20;

/// Bytes of an initramfs that is packed anew, packed and unpacked: it is in memory as a whole. Full ones have some 300 MiB unpacked.
pub const MAX_INITRAMFS_REWRITE: u64 = 512 << 20;

/// Bytes of memory for the names of one initramfs, 64 counted for each beside its length: some 150,000 files.
pub const MAX_INITRAMFS_NAMES: usize = 16 << 20;

/// Bytes of the module lists kept of one initramfs. A full Debian kernel's have 2.5 MiB.
pub const MAX_INITRAMFS_KEPT: usize = 32 << 20;

/// Memory that decoding may need for the window: `xz -9` and `zstd --ultra -22` images stay within it.
pub const MAX_DECODE_WINDOW: u32 = 64 << 20;

/// Bytes of one kernel module. The largest, `amdgpu`, has some 25 MiB.
pub const MAX_MODULE: u64 = 64 << 20;

/// Bytes of one of the module lists of a guest's kernel (`modules.alias` and its like).
pub const MAX_MODULE_LIST: u64 = 16 << 20;

/// Bytes of one initramfs as it lies in `/boot`.
pub const MAX_INITRAMFS: u64 = 1 << 30;

/// Bytes of one file of the user's that is put into a guest; it is held in memory. A package such as the guest agent's has less
/// than 2 MiB.
pub const MAX_INJECTED_FILE: u64 = 16 << 20;

/// Bytes of one diff in a plan; what is longer is cut.
pub const MAX_DIFF: usize = 16 << 10;

/// Bytes of guest files that are kept to undo a migration: three large initramfs images that were rewritten, and much more than
/// all configuration. The memory of the default budget.
pub const MAX_UNDO: u64 = 256 << 20;

/// Bytes of the line that tells how a migration is undone: some hundred a change, so many more changes than any guest gets.
pub const MAX_UNDO_HEAD: u64 = 16 << 20;

/// Bytes of the report of a migration. A large one has some 200 KiB.
pub const MAX_REPORT: u64 = 64 << 20;

/// Refcount blocks of a qcow2 image that is written: qemu reads a refcount table of at most 8 MiB.
pub const MAX_QCOW2_REFCOUNT_BLOCKS: u64 = (8 << 20) / 8;

/// Headers of one tar archive. An OVA has a member for each disk and a handful more; this bounds the walk over 2^20 empty ones.
pub const MAX_TAR_HEADERS: usize = 4096;

/// Bytes of one PAX extended header. Real ones have a few hundred.
pub const MAX_TAR_PAX: usize = 1 << 20;

/// Bytes of an OVF manifest: a line of some 200 for each file of the package.
pub const MAX_MANIFEST: usize = 1 << 20;

/// Bytes of an OVF descriptor. Real ones have 5 to 100 kilobytes.
pub const MAX_OVF: usize = 4 << 20;

/// XML nodes of an OVF descriptor: some 100 bytes of memory each.
pub const MAX_OVF_NODES: u32 = 200_000;

/// Block groups of an ext file system: 64 TiB with blocks of 4 KiB, where VMware's largest disk has 62; their descriptors and the
/// places of their metadata then take at most 64 MiB of memory.
pub const MAX_EXT_GROUPS: u64 = 1 << 19;

/// Runs and map blocks of one ext file that are held at once, 32 bytes each. A file of 4 GiB in single blocks has as many.
pub const MAX_EXT_RUNS: usize = 1 << 20;

/// Bytes of an ext directory; the kernel refuses to grow one further without large_dir.
pub const MAX_EXT_DIR: u64 = 2 << 30;

/// Bytes of an extended attribute's value in an inode of its own, as in the kernel.
pub const MAX_EXT_XATTR: u32 = 64 << 10;

/// Bytes of content inside an ext inode: less than the largest inode, which is a block.
pub const MAX_EXT_INLINE: usize = 64 << 10;

/// Revoked blocks of an ext journal that are held at once.
pub const MAX_EXT_REVOKED: usize = 1 << 20;

/// Bytes of ext metadata kept in memory for one file system.
pub const EXT_CACHE: u64 = 4 << 20;

/// Bytes of ext metadata that go into one write.
pub const EXT_WRITE: u64 = 1 << 20;

/// Allocation groups of an XFS file system. mkfs makes at most some hundred; one that grew from 1 GiB to 64 TiB has 262,144.
pub const MAX_XFS_GROUPS: u32 = 1 << 20;

/// Levels of an XFS B+tree, the kernel's own bound.
pub const MAX_XFS_LEVELS: u16 = 9;

/// Bytes of an XFS directory's entries. The format allows 32 GiB; 2 GiB are fifty million names.
pub const MAX_XFS_DIR: u64 = 2 << 30;

/// Leaves that are read to find one name among those with the same hash, or all attributes of one inode. A leaf has some
/// hundred entries.
pub const MAX_XFS_HASH_LEAVES: usize = 4096;

/// Bytes of all extended attributes of one XFS inode. The kernel lists no more than 64 KiB of names.
pub const MAX_XFS_XATTRS: u64 = 64 << 20;

/// Basic blocks of an XFS log: the 2 GiB that the kernel allows, and the padding of mkfs.
pub const MAX_XFS_LOG: u32 = 4 << 20;

/// Bytes that the replay of an XFS log holds: of transactions that are not committed yet, and of what was changed. mkfs makes
/// logs of 64 MiB to 2 GiB, half of which may wait for a replay, most of it changes of the same blocks.
pub const MAX_XFS_REPLAYED: usize = 256 << 20;

/// Buffers that an XFS log says were freed, 40 bytes of memory each.
pub const MAX_XFS_CANCELLED: usize = 1 << 20;

/// Changes that an XFS log says were begun and not finished. The kernel has some hundred under way.
pub const MAX_XFS_INTENTS: usize = 1 << 14;

/// Names, and leaves of its index, of an XFS directory that is changed, eight bytes each.
pub const MAX_XFS_NAMES: usize = 1 << 21;

/// Extents of one XFS file that is changed, 32 bytes each: 4 GiB in single blocks of 4 KiB.
pub const MAX_XFS_EXTENTS: usize = 1 << 20;

/// Files that share an XFS block which is changed, as far as they are looked through.
pub const MAX_XFS_OWNERS: usize = 1 << 16;

/// Bytes of XFS metadata kept in memory for one file system.
pub const XFS_CACHE: u64 = 8 << 20;

/// Pieces of XFS metadata that are remembered as right, 32 bytes each: more than the cache holds in blocks of 512 bytes.
pub const MAX_XFS_VERIFIED: usize = 1 << 15;

/// Bytes of what a replayed XFS log changes that go into one write.
pub const XFS_WRITE: u64 = 1 << 20;

/// Bytes of one block of a VHD: 2 MiB by default, and never seen larger than 16 MiB.
pub const MAX_VHD_BLOCK: u64 = 256 << 20;

/// Bytes of one record of a copy's journal. The longest that is written has 2,048 pieces of 20 bytes (every second
/// sector of a chunk), or a header with some hundred characters of options.
pub const MAX_JOURNAL_RECORD: usize = 64 << 10;

/// Bytes of a VHDX: the 64 TiB that the format allows.
pub const MAX_VHDX_SIZE: u64 = 64 << 40;

/// Bytes of a VHDX log. Hyper-V makes logs of 1 MiB.
pub const MAX_VHDX_LOG: u64 = 64 << 20;

/// Sectors of 4 KiB that the replay of a VHDX log keeps in memory: 32 MiB.
pub const MAX_VHDX_REPLAYED: usize = 8192;

/// Findings of a check that are kept of one layer; all are counted. A person reads a dozen, and a program needs the counts.
pub const MAX_FINDINGS: usize = 1000;

/// Blocks or frames of a compressed file: 16 TiB in frames of 16 MiB, 1 TiB in bzip2 blocks; 64 bytes of memory each at most.
pub const MAX_PACKED_UNITS: usize = 1 << 20;

/// Bytes of the index of an xz stream: some ten a block, and blocks have 24 MiB where nothing else was asked for.
pub const MAX_XZ_INDEX: usize = 16 << 20;

/// Bytes that may be decoded in vain in a compressed file that is one piece: a minute's work. Headers and tables at its front are
/// near; whatever jumps back decodes from the start again.
pub const MAX_PACKED_WASTE: u64 = 8 << 30;

/// Internal snapshots of a qcow2 image: qemu's own bound.
pub const MAX_QCOW2_SNAPSHOTS: u32 = 65536;

/// Bytes of a qcow2 snapshot table: all that qemu allows with 256 bytes each.
pub const MAX_QCOW2_SNAPSHOT_TABLE: u64 = 16 << 20;

/// Persistent bitmaps of a qcow2 image: qemu's own bound.
pub const MAX_QCOW2_BITMAPS: u32 = 65535;

/// Bytes of a qcow2 bitmap directory: all that qemu allows with 256 bytes each.
pub const MAX_QCOW2_BITMAP_DIRECTORY: u64 = 16 << 20;

/// L2 entries that one check of a qcow2 image looks at, snapshots and passes counted: a minute's work, and 256 TiB of clusters of
/// the default size.
pub const MAX_QCOW2_CHECK_ENTRIES: u64 = 1 << 32;

/// Passes over a qcow2 image's tables that one check makes, each for as many clusters as memory holds counters for: 16 TiB of file
/// with the default budget and cluster size.
pub const MAX_QCOW2_CHECK_PASSES: u64 = 16;

/// Passes over a VMDK's tables that one check makes, each for 64 GiB of a file: all of the 2 TiB that entries of 32 bits lead to.
pub const MAX_VMDK_CHECK_PASSES: u64 = 32;

/// Bytes of a `.vmx`. Real ones have 2 to 10 kilobytes.
pub const MAX_VMX: usize = 1 << 20;

/// Network cards of a `.vmx`: VMware's own bound.
pub const MAX_VMX_NICS: usize = 10;

/// Chunks of one file of an OVF package. Each is an open file where they lie in a directory; 2 GB chunks make 2 TB.
pub const MAX_OVF_CHUNKS: usize = 1000;

/// Bytes of metadata kept in memory for one file system other than ext.
pub const FS_CACHE: u64 = 4 << 20;

/// Bytes of file content that go into one write.
pub const FS_WRITE: u64 = 1 << 20;

/// Bytes of a FAT directory: the 65,536 entries that the specification allows.
pub const MAX_FAT_DIR: u64 = 65_536 * 32;

/// Bytes of an exFAT directory: the format's own bound.
pub const MAX_EXFAT_DIR: u64 = 256 << 20;

/// Pieces of one FAT or exFAT file that are held at once, 12 bytes each. A file of 4 GiB in single clusters of 4 KiB has as many.
pub const MAX_FAT_RUNS: usize = 1 << 20;

/// Chunks of a btrfs file system: 64 TiB in chunks of 1 GiB, some 150 bytes of memory each.
pub const MAX_BTRFS_CHUNKS: usize = 1 << 16;

/// Subvolumes of a btrfs file system, snapshots included; their places in the list are told in 16 bits. Snapper and Docker keep
/// some hundreds.
pub const MAX_BTRFS_SUBVOLUMES: usize = u16::MAX as usize;

/// Subvolumes of a file system that are looked at for the root of an installed system, where no usual name leads to it.
pub const MAX_ROOT_SUBVOLUMES: usize = 256;

/// Bytes of a compressed extent of btrfs, as stored and decoded: the kernel's own bound.
pub const MAX_BTRFS_UNIT: usize = 128 << 10;

/// Bytes of all extended attributes of one file of btrfs. The kernel lists names of at most 64 KiB together.
pub const MAX_BTRFS_XATTRS: usize = 16 << 20;

/// Bytes of btrfs metadata kept in memory for one file system.
pub const BTRFS_CACHE: usize = 8 << 20;

/// Compressed extents of btrfs that are kept decoded: 1 MiB.
pub const BTRFS_DECODED: usize = 8;

/// Bytes of a btrfs log whose replay is kept in memory: some 100,000 files. What is synced by a busy machine within the 30 s between
/// two transactions is a few mebibytes.
pub const MAX_BTRFS_LOG: usize = 64 << 20;

/// Bytes that the replay counts for one item besides its content: key, slot and the map's own overhead, rounded up.
pub const BTRFS_LOG_ITEM: usize = 64;

/// Free ranges of one block group of btrfs that are held at once while it is written to, some 100 bytes each: more than a chunk of
/// 1 GiB can have with sectors of 4 KiB.
pub const MAX_BTRFS_GAPS: usize = 1 << 19;

/// Items of one file of btrfs that is removed: some 100 GiB in pieces of 128 KiB.
pub const MAX_BTRFS_ITEMS: usize = 1 << 20;

/// Bytes of changed items of btrfs that wait in memory. More is stored before the next change.
pub const BTRFS_PENDING: usize = 8 << 20;

/// Continuation areas of one directory record on an ISO 9660 volume, as in the kernel. Names and links need one or two.
pub const MAX_ISO_CONTINUATIONS: usize = 32;

/// Pieces of one file on an ISO 9660 volume: 4 TiB in pieces of nearly 4 GiB.
pub const MAX_ISO_EXTENTS: usize = 1024;

/// Bytes of one directory on an ISO 9660 volume: some half a million names.
pub const MAX_ISO_DIR: u64 = 64 << 20;

/// Partition maps of one UDF volume. Real ones have one, or two where metadata have their own.
pub const MAX_UDF_PARTITIONS: u32 = 16;

/// Pieces of one UDF file that are held at once, 24 bytes each. One of 2 GiB in single blocks has as many.
pub const MAX_UDF_EXTENTS: usize = 1 << 20;

/// Blocks of further allocation descriptors of one UDF file: what the pieces above take in blocks of 2 KiB.
pub const MAX_UDF_CONTINUATIONS: usize = 1 << 13;

/// Bytes of one UDF directory: a million names.
pub const MAX_UDF_DIR: u64 = 64 << 20;

/// Bytes of LVM's text metadata. A group of a thousand volumes has about 1 MiB, which is also the usual size of its area.
pub const MAX_LVM_TEXT: u64 = 16 << 20;

/// Logical volumes of one group, hidden ones too. LVM itself becomes slow with some thousands.
pub const MAX_LVM_VOLUMES: usize = 1 << 14;

/// Nodes of a thin pool's trees that are held at once, 4 KiB each.
pub const MAX_THIN_NODES: usize = 1024;

/// Members of one array: MD's own bound for superblocks of version 1 is 384 with one sector of roles.
pub const MAX_RAID_MEMBERS: usize = 384;

/// Volumes of one machine, on disks and on each other: all that a few disks of partitions and a large volume group have.
pub const MAX_VOLUMES: usize = 4096;

/// Bytes of a LUKS2 header: the largest of the sizes that the format allows.
pub const MAX_LUKS_HEADER: u64 = 4 << 20;

/// Iterations of PBKDF2 for one key slot. Two seconds on the fastest processor are some ten million.
pub const MAX_LUKS_ITERATIONS: u32 = 100_000_000;

/// KiB that deriving one key may take while it lasts: what cryptsetup uses at most unless it is told otherwise, 1 GiB.
pub const MAX_LUKS_MEMORY: u32 = 1 << 20;

/// KiB that deriving one key may go over, all passes together: 64 GiB, about a minute.
pub const MAX_LUKS_WORK: u64 = 64 << 20;

/// Key slots of one encrypted volume: LUKS2's own bound.
pub const MAX_LUKS_SLOTS: usize = 32;

/// Runs of one NTFS file that are held at once, 32 bytes each. A file of 4 GiB in single clusters has as many.
pub const MAX_NTFS_RUNS: usize = 1 << 20;

/// Bytes of an NTFS attribute list: the format's own bound.
pub const MAX_NTFS_ATTRIBUTE_LIST: u64 = 256 << 10;

/// Bytes of an NTFS directory's index blocks: some million names.
pub const MAX_NTFS_INDEX: u64 = 256 << 20;

/// Bytes that NTFS compresses together: 16 clusters of at most 4 KiB; larger clusters are never compressed.
pub const MAX_NTFS_UNIT: u64 = 64 << 10;

/// Bytes of a named stream that is shown as an extended attribute: the kernel's own bound for one.
pub const MAX_NTFS_STREAM: u64 = 64 << 10;

/// Bytes of a registry hive's bins: offsets of cells have 31 bits.
pub const MAX_HIVE: u64 = 2 << 30;

/// Levels of keys that a walk of a hive goes down: Windows makes no more than 512.
pub const MAX_HIVE_DEPTH: usize = 512;

/// Keys that one walk of a hive visits, 16 bytes of memory each. A SOFTWARE hive of a busy server has some hundred thousand.
pub const MAX_HIVE_KEYS: usize = 1 << 21;

/// Subkeys of one key, 12 bytes of memory each. The largest in the field are some ten thousand classes.
pub const MAX_HIVE_SUBKEYS: usize = 1 << 18;

/// Values of one key. Windows allows 16,383 a key in some versions and keeps some thousands in practice.
pub const MAX_HIVE_VALUES: usize = 1 << 16;

/// Bytes of one value's data. Windows advises against more than 2 KiB; the largest in the field have 1 MiB.
pub const MAX_HIVE_VALUE: usize = 16 << 20;

/// Sectors of a hive that are taken from its logs, some 16 bytes of memory each: 512 MiB of changes.
pub const MAX_HIVE_DIRTY: usize = 1 << 20;

/// Bytes of one entry of a hive's log. Windows writes entries of some kilobytes to a few megabytes.
pub const MAX_HIVE_LOG_ENTRY: u64 = 256 << 20;

/// Blocks of 16 KiB of a hive that are kept in memory: 4 MiB.
pub const MAX_HIVE_BLOCKS: usize = 256;

/// Journal files of one guest. journald keeps at most some hundred by default.
pub const MAX_JOURNAL_FILES: usize = 4096;

/// Bytes of one field of a journal entry. journald takes 768 MiB, and nothing but core dumps of old versions came near.
pub const MAX_JOURNAL_DATA: usize = 64 << 20;

/// Fields of one journal entry; journald itself takes 1,024.
pub const MAX_JOURNAL_FIELDS: usize = 4096;

/// Pieces of one list of a journal file. Each has twice the room of the one before.
pub const MAX_JOURNAL_ARRAYS: usize = 4096;

/// Objects with the same place in a journal's hash table. journald begins a new file at 100.
pub const MAX_JOURNAL_CHAIN: usize = 1 << 16;

/// Values of a field, names of fields, or starts of the machine that are listed from a journal.
pub const MAX_JOURNAL_VALUES: usize = 1 << 18;

/// Packages of one package manager. All of Debian has some 65,000; large desktops have 5,000.
pub const MAX_PACKAGES: usize = 1 << 16;

/// Bytes of text about them that is kept. Each has some 700.
pub const MAX_PACKAGE_TEXT: usize = 64 << 20;

/// Bytes of one line of a package database or log that are looked at. Lines of apt's log name every package of an upgrade.
pub const MAX_PACKAGE_LINE: usize = 256 << 10;

/// Bytes of a package manager's text file or log, unpacked. dpkg's status has 6 MiB for 5,000 packages.
pub const MAX_PACKAGE_FILE: u64 = 64 << 20;

/// Bytes of one record of a package manager's database: rpm's header of a package with 100,000 files has some 14 MiB.
pub const MAX_DATABASE_ROW: u64 = 32 << 20;

/// Pages of a database that wait in its log: 256 MiB of usual pages. SQLite merges a log of 1,000, and rpm one of 10,000.
pub const MAX_DATABASE_LOG_PAGES: usize = 1 << 16;

/// Services, applications, firewall rules or other things of one kind that are listed of a Windows. Busy ones have some thousand.
pub const MAX_WINDOWS_ITEMS: usize = 1 << 14;

/// Changes of packages that are told of a guest's logs, the last ones. Logs of a year that upgrades often have some 5,000.
pub const MAX_PACKAGE_CHANGES: usize = 1 << 14;

/// Transactions of a guest's package managers that are told, the last ones: some ten years of one a day.
pub const MAX_TRANSACTIONS: usize = 1 << 12;

/// Files and links in all folders of systemd units together, and links in one folder of what a unit wants. Distributions install
/// some five hundred.
pub const MAX_UNITS: usize = 1 << 14;

/// Links from one name of a unit to the next; systemd itself follows 64.
pub const MAX_UNIT_LINKS: usize = 64;

/// Files of a guest's syslog, with the older ones. logrotate keeps four or seven, some administrators those of a year.
pub const MAX_SYSLOG_FILES: usize = 1024;

/// Bytes of a line of a guest's syslog; what is longer goes on in the next one. Daemons cut at 8 KiB.
pub const MAX_SYSLOG_LINE: usize = 64 << 10;

/// Bytes of one file of a guest's syslog that are read, decompressed: some ten million lines.
pub const MAX_SYSLOG_BYTES: u64 = 1 << 30;

/// Parts with commas between them in one component of a calendar expression; systemd itself takes as many.
pub const MAX_CALENDAR_PARTS: usize = 241;

/// Changes of a clock that are gone through to find when a calendar expression elapses next. A zone with two a year has 460 until
/// the last year that can be asked for.
pub const MAX_CALENDAR_CHANGES: usize = 1024;

/// Bytes of one table of a guest's time zones. The largest of tzdata has under 4 KiB.
pub const MAX_TIME_ZONE: u64 = 64 << 10;

/// Rules of systemd's presets. Distributions have some two hundred.
pub const MAX_PRESETS: usize = 1024;

/// Rules and aliases of sudo in a guest. Servers that many share have some hundred.
pub const MAX_SUDO_RULES: usize = 1 << 12;

/// Users, hosts and commands in all rules of sudo together, with what aliases stand for: aliases of aliases multiply.
pub const MAX_SUDO_ITEMS: usize = 1 << 16;

/// Users of a guest that are told, and their memberships of groups. Servers with more take them from a directory.
pub const MAX_ACCOUNTS: usize = 1 << 14;

/// Parts of one file with holes that an archive keeps apart, 16 bytes of memory each and some 25 in the archive. What is behind the
/// last one goes in as a whole.
pub const MAX_ARCHIVE_PARTS: usize = 1 << 18;

/// Bytes of names, with 64 counted for each beside its own, of directories that were asked for more than one name, of file systems
/// whose directories are read from the front: some 150,000 names.
pub const KNOWN_NAMES: usize = 16 << 20;

/// Blocks of one squashfs file, and of all that are remembered: 512 GiB in blocks of the usual 128 KiB, four bytes of memory each.
pub const MAX_SQUASHFS_BLOCKS: usize = 1 << 22;

/// Bytes of a squashfs directory's listing: some ten million names.
pub const MAX_SQUASHFS_DIR: u64 = 256 << 20;

/// Bytes of all extended attributes of one file of squashfs. The kernel lists names of at most 64 KiB together.
pub const MAX_SQUASHFS_XATTRS: usize = 16 << 20;

/// Blocks of squashfs content that are kept decoded: 8 MiB of the largest, and 1 MiB of usual ones.
pub const SQUASHFS_DECODED: usize = 8;

/// Bytes of one request to a source on another machine: some 0.3 s of a fast line, and little to ask for again when it fails.
pub const MAX_REMOTE_REQUEST: usize = 8 << 20;

/// Runs of data and holes that are remembered of a file on another machine: 6 MiB of them. Of a disk that is cut up more, the first
/// ones are forgotten and asked for again.
pub const MAX_MAP_RUNS: usize = 1 << 17;

/// Names of exports that an error shows, and how much of each: enough to see a slip of the pen.
pub const SHOWN_EXPORTS: (usize, usize) = (8, 64);

/// Bytes that must come for failed requests to be forgotten: a few packets are no progress.
pub const REMOTE_PROGRESS: u64 = 64 << 10;

/// Longest pause that a server can ask for (`Retry-After`); what wants to be left alone for longer is left to the user.
pub const MAX_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(300);

/// Redirections followed to find a file on a web server. Browsers follow 20, and real ones need two or three.
pub const MAX_REDIRECTS: usize = 10;

/// Bytes of a netrc file, a certificate or a key that the user names. A bundle of all authorities has some 250 KiB.
pub const MAX_CREDENTIAL_FILE: u64 = 4 << 20;

/// Drives of an appliance: libguestfs takes 255, one of which is its own.
pub const MAX_APPLIANCE_DRIVES: usize = 254;

/// Files of one file system in an appliance that are known by their paths: some 200 MiB of memory, and more files than a plan looks at.
pub const MAX_APPLIANCE_FILES: usize = 1 << 20;

/// Bytes that one command prints: libguestfs's own messages end at 4 MiB, and lists of a large directory take several.
pub const MAX_APPLIANCE_ANSWER: usize = 64 << 20;

/// Bytes of messages that are read behind one command.
pub const MAX_APPLIANCE_MESSAGE: u64 = 64 << 10;

/// Bytes of an answer of an SFTP server that has no data of a file in it. The protocol has servers take 34000.
pub const MAX_SFTP_REPLY: u32 = 64 << 10;

/// Bytes of a handle of an SFTP server (draft-ietf-secsh-filexfer-02, section 6.2).
pub const MAX_SFTP_HANDLE: usize = 256;

/// How deep configuration files of OpenSSH include each other, as it has that itself.
pub const MAX_SSH_INCLUDES: usize = 16;

/// Private keys that are tried at one host. Servers let go after six.
pub const MAX_SSH_KEYS: usize = 64;

/// Hosts on the way to an SSH server, itself included: each is a handshake of several round trips.
pub const MAX_SSH_HOPS: usize = 8;

/// Bytes of what an object store answers beside an object: a list of pages, a token, the state of an upload.
pub const MAX_OBJECT_ANSWER: usize = 4 << 20;

/// Parts of one object that is uploaded, as S3 has it.
pub const MAX_UPLOAD_PARTS: u64 = 10_000;

/// Bytes that are read of what a server says when it does not give a file; those of object stores have some hundred.
pub const MAX_REFUSAL: usize = 64 << 10;

/// Bytes of a page blob that are taken for data when the list of their pages is still too long: every other page of these has 1024
/// entries in it, of some 70 bytes.
pub const MIN_PAGE_WINDOW: u64 = 1 << 20;
