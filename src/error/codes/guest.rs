//! Of volumes, file systems and what is in them: the guest plane.

/// Sorted by code.
pub(super) const CODES: &[(&str, &str)] = &[
    (
        "btrfs.aborted",
        "A change to the guest's btrfs file system could not be stored, and nothing more is written to it. The file system is as it was before; the message of the first failure says why.",
    ),
    (
        "btrfs.checksum",
        "A checksum of the guest's btrfs file system is wrong, or one is missing, and no other copy is right: metadata or a file was damaged. Run btrfs scrub in the guest.",
    ),
    (
        "btrfs.chunk",
        "The guest's btrfs file system says impossible things about where its bytes lie. Run btrfs check in the guest.",
    ),
    (
        "btrfs.corrupt",
        "The metadata of the guest's btrfs file system contradicts itself. Run btrfs check in the guest.",
    ),
    (
        "btrfs.device",
        "The volumes that were given are not those of one btrfs file system, or one of them is missing and what it holds has no other copy. Give all of the machine's disks.",
    ),
    ("btrfs.exists", "A file that was to be created in the guest is there already."),
    (
        "btrfs.feature",
        "The guest's btrfs file system, or one of its files, uses a feature that this program does not handle.",
    ),
    (
        "btrfs.geometry",
        "The superblock of the guest's btrfs file system gives sizes that are impossible. The disk may have been cut short.",
    ),
    (
        "btrfs.limit",
        "The guest's btrfs file system has more chunks, subvolumes or attributes, or larger extents, than this program handles.",
    ),
    (
        "btrfs.name",
        "A name in the guest's file system is not what was asked for: not a file name, or not of the right kind of file.",
    ),
    ("btrfs.not-empty", "A directory that was to be removed from the guest's btrfs file system has something in it."),
    ("btrfs.not-found", "A file that was to be changed in the guest is not there."),
    (
        "btrfs.read-only",
        "A change was asked of a btrfs file system that was opened for reading, of a subvolume that may only be read, or of a file system in a state that is not written to: the message says which.",
    ),
    (
        "btrfs.space",
        "The guest's btrfs file system has too little free space for the change. Nothing was changed; free some space in the guest.",
    ),
    ("btrfs.subvolume", "There is no such subvolume in the guest's btrfs file system."),
    (
        "btrfs.xattr",
        "An extended attribute of a guest's file cannot be set: its name is no attribute's, or there is no room for it.",
    ),
    (
        "exfat.corrupt",
        "The guest's exFAT file system contradicts itself at the place that the message names. chkdsk in the guest, or fsck.exfat, repairs it.",
    ),
    (
        "exfat.geometry",
        "The boot region of an exFAT file system gives sizes that are impossible, or that the volume does not hold.",
    ),
    (
        "exfat.limit",
        "A file of an exFAT file system is in more pieces, or a directory larger, than this program handles.",
    ),
    ("exfat.name", "A name in an exFAT file system is not of the right kind of file."),
    ("exfat.read-only", "A change was asked of an exFAT file system, which can only be read."),
    (
        "ext.checksum",
        "A checksum of the guest's ext file system is wrong: its metadata was damaged. Run e2fsck in the guest.",
    ),
    ("ext.corrupt", "The metadata of the guest's ext file system contradicts itself. Run e2fsck in the guest."),
    ("ext.exists", "A file that was to be created in the guest is there already."),
    (
        "ext.feature",
        "The guest's ext file system, or one of its files, uses a feature that this program does not handle.",
    ),
    (
        "ext.geometry",
        "The superblock of the guest's ext file system gives sizes that are impossible, or larger than its volume. The disk may have been cut short.",
    ),
    (
        "ext.journal",
        "The journal of the guest's ext file system cannot be replayed. It is read as it is, and not written to. Mount and unmount it in the guest, or run e2fsck there.",
    ),
    (
        "ext.limit",
        "The guest's ext file system is larger, or a file of it is in more pieces, than this program handles.",
    ),
    (
        "ext.name",
        "A name in the guest's file system is not what was asked for: not a file name, or not of the right kind of file.",
    ),
    ("ext.not-empty", "A directory that was to be removed from the guest still holds something."),
    ("ext.not-found", "A file that was to be changed in the guest is not there."),
    ("ext.read-only", "A change was asked of an ext file system that was opened for reading."),
    (
        "ext.space",
        "The guest's ext file system has too little free space for the change. Nothing was changed; free some space in the guest.",
    ),
    (
        "ext.xattr",
        "An extended attribute of a guest's file cannot be set: its name is unknown, or there is no room for it.",
    ),
    (
        "fat.corrupt",
        "The tables or directories of the guest's FAT file system contradict themselves. Run fsck.vfat, or chkdsk, in the guest.",
    ),
    (
        "fat.exists",
        "A file that was to be created in the guest is there already. Names that differ in case only are the same on FAT.",
    ),
    (
        "fat.feature",
        "A FAT file system cannot keep this: it has no symbolic links, no owners and no extended attributes; or its version is not known.",
    ),
    (
        "fat.geometry",
        "The boot sector of the guest's FAT file system gives sizes that are impossible, or larger than its volume. The disk may have been cut short.",
    ),
    (
        "fat.limit",
        "A file or directory of the guest's FAT file system is larger, or in more pieces, than the format allows or this program handles.",
    ),
    (
        "fat.name",
        "A name in the guest's file system is not what was asked for: not a file name that FAT can keep, or not of the right kind of file.",
    ),
    ("fat.not-empty", "A directory that was to be removed from the guest still holds something."),
    ("fat.not-found", "A file of the guest's FAT file system is not there, or no longer."),
    (
        "fat.read-only",
        "A change was asked of a FAT file system that can only be read: it was opened for reading, or its boot sector is damaged.",
    ),
    (
        "fat.space",
        "The guest's FAT file system has too little free space for the change, or a directory of it has no room. Nothing was changed; free some space in the guest.",
    ),
    (
        "fix.changed",
        "A file of the guest is no longer as it was when the fix was planned, so the planned content is not written over it. Plan again.",
    ),
    (
        "guest.copy",
        "A copy of a guest's file needs a name on this host. Name a file or directory that is not there yet, or a directory to copy into.",
    ),
    (
        "guest.directory-loop",
        "A directory of the guest has two names, which only a damaged file system allows. It was listed under the first one; check the file system in the guest.",
    ),
    (
        "guest.directory-size",
        "A directory of the guest has more entries than any real one. The guest's file system may be damaged.",
    ),
    ("guest.disk", "A disk of the machine was asked for that it does not have."),
    ("guest.exists", "A file that a fix wants to create exists already in the guest."),
    ("guest.file-size", "A file of the guest is larger than any that makes sense in its place, and is not read."),
    (
        "guest.full",
        "The guest's file system has no room for what a fix adds. Free some space inside the guest, then try again.",
    ),
    (
        "guest.incomplete",
        "Some files of the guest could not be read; the rest was. Each was told when it happened, and the first is repeated.",
    ),
    (
        "guest.mounted",
        "A directory that was to be removed or renamed in the guest holds a mounted file system, or a name was to move from one file system to another.",
    ),
    ("guest.name", "A name is not one that a file can have."),
    (
        "guest.none",
        "No partition holds a Linux system that this program can read. What was found instead is listed. `hyper2kvm convert` copies the disk as it is, without fixes.",
    ),
    ("guest.not-a-directory", "A path inside the guest leads to something that is not a directory."),
    ("guest.not-empty", "A directory that was to be removed from the guest still holds something."),
    ("guest.not-found", "A path leads to nothing inside the guest."),
    ("guest.not-regular", "A path inside the guest leads to something that is not a regular file."),
    (
        "guest.short-file",
        "A file of the guest ended before the length that its inode gives. Its file system is damaged, or was copied while it was written to.",
    ),
    (
        "guest.volume",
        "The guest has no volume of that name, or none with a file system that can be read. The message lists those it has.",
    ),
    (
        "guest.walk-size",
        "A tree of the guest has more directories, or longer paths, than any that makes sense. Name a part of it.",
    ),
    (
        "hive.absent",
        "There is no such key or value in the registry hive. Keys are named from the hive's root, apart by backslashes.",
    ),
    (
        "hive.corrupt",
        "The registry hive contradicts itself. Where it was taken from a machine that was running, its .LOG1 and .LOG2 files, which lie beside it, have what is missing; boot Windows once and shut it down, so that it repairs the hive.",
    ),
    (
        "hive.limit",
        "The registry hive has more keys or values, deeper keys or larger values than this program handles.",
    ),
    ("hive.name", "A registry hive was asked for that the guest does not have. The message lists those that it has."),
    ("hive.signature", "A file that was named as a registry hive does not begin as one."),
    (
        "hive.version",
        "The registry hive is of a version that this program does not read, or it is a log of a hive; name the hive itself.",
    ),
    (
        "initramfs.cpio",
        "An archive inside the guest's initramfs contradicts the cpio format. Rebuild the initramfs in the guest.",
    ),
    (
        "initramfs.decode",
        "A compressed part of the guest's initramfs or one of its drivers does not decompress. Rebuild the initramfs in the guest.",
    ),
    (
        "initramfs.encode",
        "A compression library failed while the new part of the initramfs was packed. This is a bug or a lack of memory.",
    ),
    (
        "initramfs.format",
        "The guest's initramfs holds bytes that no kernel would read, so nothing is added to it. Rebuild it in the guest.",
    ),
    (
        "initramfs.index-size",
        "The module index for the initramfs would be larger than its format can say. No real kernel has so many modules.",
    ),
    (
        "initramfs.module-missing",
        "The guest's modules.dep names a driver that is not there or is not a kernel module. Its kernel package is damaged; install it again in the guest.",
    ),
    (
        "initramfs.module-size",
        "A driver of the guest is larger than any real one. Its kernel package is damaged, or the guest is hostile.",
    ),
    ("initramfs.segment-size", "A file for the initramfs is larger than the cpio format can say."),
    (
        "initramfs.size",
        "The guest's initramfs unpacks to more than any real one. It is damaged, or the guest is hostile.",
    ),
    (
        "initramfs.unified",
        "A unified kernel image cannot be changed: it is signed, has several profiles, or its headers contradict themselves. Give it virtio drivers and a root by UUID in the guest, and sign it there.",
    ),
    (
        "inject.absent",
        "The guest lacks what something that was asked for needs: a group, a unit, a script, cloud-init, an init that could run scripts.",
    ),
    (
        "inject.config",
        "The configuration of what is put into the guest is no YAML or JSON, has a field that this program does not know, or says too little. docs/guests.md lists all fields.",
    ),
    (
        "inject.impossible",
        "Something that was asked for cannot be done in this guest: there is no space, its file system cannot be written, or something else is in the place.",
    ),
    ("inject.size", "A file that was to be put into the guest is larger than any that makes sense there."),
    ("inject.value", "A value is not what it is to be: a name, a path, a hash of a password, a public key."),
    (
        "iso.corrupt",
        "The directories of an ISO 9660 volume contradict themselves. Fetch the file anew and compare its checksum.",
    ),
    (
        "iso.feature",
        "A file on an ISO 9660 volume is stored in a way that this program does not handle: compressed (zisofs), with holes, or interleaved.",
    ),
    ("iso.geometry", "The volume descriptors of an ISO 9660 volume give sizes that are impossible."),
    ("iso.limit", "A file or directory of an ISO 9660 volume is in more pieces, or larger, than this program handles."),
    ("iso.name", "A name on an ISO 9660 volume is not of the right kind of file."),
    ("iso.read-only", "A change was asked of an ISO 9660 volume, which is made once and never changed."),
    (
        "log.boot",
        "The guest's journal does not reach back so far, or knows no such start. guest log SRC --list-boots lists those it has.",
    ),
    (
        "log.none",
        "The guest has neither a systemd journal nor a syslog file. A journal that was kept in memory only (/run) was lost when the guest stopped.",
    ),
    (
        "log.option",
        "An option of guest log has a value that it cannot have, or one that a guest without a journal cannot answer. The message says what would do.",
    ),
    ("log.size", "A file of the guest's syslog is longer than this program reads; what comes behind is left out."),
    (
        "log.time",
        "A time was not understood. Write 2026-01-31 12:00:00, 12:00, today, yesterday, -1h, \"2 days ago\" or @1700000000 (seconds since 1970).",
    ),
    ("log.unit", "No unit in the guest's journal fits the pattern. guest log SRC -F _SYSTEMD_UNIT lists those it has."),
    (
        "luks.cost",
        "A key slot of an encrypted volume asks for more memory or time than this program spends on one: 1 GiB, or a minute. Add another key slot in the guest, with cryptsetup luksAddKey --pbkdf-memory.",
    ),
    (
        "luks.header",
        "The header of a LUKS volume is damaged. Version 2 keeps two copies, and one that is whole is enough. cryptsetup repair may help in the guest.",
    ),
    (
        "luks.key-missing",
        "A volume is encrypted with LUKS, and no key was given for it. --key UUID:file:PATH gives one, or --key all:prompt asks for it.",
    ),
    (
        "luks.key-wrong",
        "None of the keys that were given opens an encrypted volume. A key in a file is tried as it is, and without a line feed at its end.",
    ),
    (
        "luks.unsupported",
        "A LUKS volume uses a cipher, hash or feature that this program does not know, or a re-encryption has not ended. The message names it.",
    ),
    (
        "lvm.degraded",
        "Too few legs of a RAID logical volume are there and in sync. Name all disks of the machine, or repair it in the guest with lvconvert --repair.",
    ),
    (
        "lvm.duplicate",
        "Two disks carry LVM physical volumes of the same UUID: one is a copy of the other, and which one counts cannot be told. Name one of them only.",
    ),
    ("lvm.label", "The label of an LVM physical volume is damaged or missing."),
    (
        "lvm.metadata",
        "LVM's metadata is damaged, contradicts itself, or is larger than any real one. Other copies are used where there are some.",
    ),
    (
        "lvm.missing",
        "A disk that holds a physical volume of the group was not named, or is damaged. Volumes that need nothing from it can be used.",
    ),
    ("lvm.reshape", "A RAID logical volume is being reshaped. Let that end in the guest; lvs shows how far it is."),
    (
        "lvm.snapshot",
        "Snapshots of LVM's old kind (not thin ones) are not read, and neither is a volume that a snapshot is being merged into. The origin of a snapshot is.",
    ),
    ("lvm.thin", "The metadata of a thin pool is damaged. thin_check and thin_repair help in the guest."),
    (
        "lvm.unsupported",
        "A logical volume is of a type that is not read: cached, VDO, integrity, or one that is newer than this program. The message names it.",
    ),
    (
        "md.degraded",
        "Too few members of an array are there and up to date. Name all disks of the machine, or repair the array in the guest with mdadm.",
    ),
    (
        "md.duplicate",
        "Two devices claim the same place in an array: one is a copy of the other, and which one counts cannot be told.",
    ),
    ("md.reshape", "An array is being reshaped. Let that end in the guest; /proc/mdstat shows how far it is."),
    ("md.superblock", "The superblock of an MD array's member is damaged, or its members contradict each other."),
    ("md.unsupported", "An array uses a level, layout or feature that is not read. The message names it."),
    ("ntfs.corrupt", "The metadata of the guest's NTFS contradicts itself. Run chkdsk in the guest."),
    (
        "ntfs.feature",
        "A file of the guest's NTFS is stored in a way that this program does not handle: encrypted (EFS), deduplicated, compressed by the Windows Overlay Filter (compact.exe /u undoes that in the guest), or kept elsewhere.",
    ),
    (
        "ntfs.geometry",
        "The boot sector of the guest's NTFS gives sizes that are impossible, or larger than its volume. The disk may have been cut short.",
    ),
    ("ntfs.limit", "A file or directory of the guest's NTFS is in more pieces, or larger, than this program handles."),
    ("ntfs.name", "A name in the guest's NTFS is not of the right kind of file."),
    ("ntfs.not-found", "A file record of the guest's NTFS is not in use."),
    ("ntfs.read-only", "A change was asked of an NTFS file system, which this program only reads yet."),
    (
        "packages.file",
        "A file of the guest's package manager is larger than any that makes sense. What came before is told.",
    ),
    (
        "packages.log",
        "A compressed log of the guest's package manager does not decompress: it was cut or damaged. What came before is told.",
    ),
    (
        "packages.size",
        "The guest's package database names more packages, or says more of them, than makes sense on one machine. Those that came first are told.",
    ),
    ("raid.corrupt", "The parameters of an array with parity do not fit together or do not fit its members."),
    ("raid.degraded", "An array with parity lacks more members than its parity makes up for."),
    ("rpm.database", "The guest's database of rpm packages contradicts itself. Run rpmdb --rebuilddb in the guest."),
    (
        "rpm.header",
        "A package in the guest's rpm database has a header longer than any that makes sense. Run rpmdb --rebuilddb in the guest.",
    ),
    (
        "rpm.version",
        "The guest's database of rpm packages is of a kind that this program does not read: a newer version, encrypted, or with checksums.",
    ),
    (
        "sqlite.corrupt",
        "A SQLite database of the guest contradicts the file format, or was copied while it was written to. sqlite3 FILE .recover may help in the guest.",
    ),
    (
        "sqlite.log",
        "The log beside a SQLite database of the guest has more pages than make sense. Opening the database in the guest merges it.",
    ),
    ("sqlite.row", "A row of a SQLite database of the guest is longer than any that makes sense there."),
    (
        "sqlite.unsupported",
        "A SQLite database of the guest uses a part of the file format that this program does not read; the message says which.",
    ),
    (
        "squashfs.corrupt",
        "The squashfs file system contradicts itself at the place that the message names, or a block of it does not decode: the image was damaged. Get it again; nothing repairs one.",
    ),
    (
        "squashfs.feature",
        "The squashfs file system is of another version than 4.0, or compressed in a way that this program does not know. unsquashfs may read it.",
    ),
    (
        "squashfs.geometry",
        "The superblock of the squashfs file system gives sizes that are impossible, or more than the volume holds. It may have been cut short.",
    ),
    (
        "squashfs.limit",
        "A file of the squashfs file system has more blocks or attributes, or a directory more names, than this program handles.",
    ),
    ("squashfs.name", "A name in a squashfs file system is not of the right kind of file."),
    ("squashfs.read-only", "A change was asked of a squashfs file system, which is made once and never changed."),
    (
        "udf.corrupt",
        "A UDF file system contradicts itself at the place that the message names. The image may be incomplete: compare its checksum with its maker's.",
    ),
    (
        "udf.feature",
        "A UDF file system uses something that this program does not read, such as sessions on media that are written once. The message names it.",
    ),
    ("udf.geometry", "The descriptors of a UDF volume give sizes that are impossible."),
    ("udf.limit", "A file or directory of a UDF volume is in more pieces, or larger, than this program handles."),
    ("udf.name", "A name on a UDF volume is not of the right kind of file."),
    ("udf.read-only", "A change was asked of a UDF file system, which can only be read."),
    (
        "undo.changed",
        "The migrated guest is not as the migration left it: a file that was changed then was changed again, or has gone. Nothing is undone.",
    ),
    (
        "undo.corrupt",
        "The file that undoes a migration, NAME.undo beside its report, is damaged, or is not the one that the report names.",
    ),
    (
        "undo.lost",
        "What it takes to undo the migration was not kept, since it was too much, or since an older version did not keep it. The source is as it was.",
    ),
    ("undo.report", "The file is not the report of a migration, or the files that it names do not lie beside it."),
    (
        "units.absent",
        "The guest has no unit of systemd that fits what was asked. guest units SRC lists those that have files.",
    ),
    (
        "units.calendar",
        "A calendar expression cannot be understood, or --iterations is out of range. systemd.time(7) describes them: Mon..Fri *-*-* 03:00, *-*~1, *:0/15, weekly.",
    ),
    (
        "units.none",
        "The guest has no units of systemd: something else runs as its first process, or another file system holds them.",
    ),
    (
        "units.pattern",
        "A pattern of names of units could not be understood. * and ? stand for any text and any character, [a-z] for one of these.",
    ),
    (
        "units.timespan",
        "A span of time cannot be understood. systemd.time(7) describes them: 1h 30min, 2 weeks, 300ms.",
    ),
    ("volume.count", "A machine has more volumes than any real one; the rest is left alone."),
    (
        "volume.outside",
        "A partition reaches past the end of its disk, so it is not written to. The disk was cut short, or its table is damaged.",
    ),
    (
        "volume.overlap",
        "Two partitions share bytes, so neither is written to: a change of one could damage the other. Repair the table in the guest.",
    ),
    (
        "xfs.aborted",
        "A change to the guest's XFS file system could be stored in part only, and nothing more is written to it. The source is as it was; the message of the first failure says why.",
    ),
    (
        "xfs.checksum",
        "A checksum of the guest's XFS file system is wrong: its metadata was damaged. Run xfs_repair in the guest.",
    ),
    ("xfs.corrupt", "The metadata of the guest's XFS file system contradicts itself. Run xfs_repair in the guest."),
    ("xfs.exists", "A name that was to be created in the guest's XFS file system exists already."),
    (
        "xfs.feature",
        "The guest's XFS file system, or one of its files, uses a feature that this program does not handle.",
    ),
    (
        "xfs.geometry",
        "The superblock of the guest's XFS file system gives sizes that are impossible, or larger than its volume. The disk may have been cut short.",
    ),
    ("xfs.limit", "The guest's XFS file system, one of its files or its log is larger than this program handles."),
    (
        "xfs.log",
        "The log of the guest's XFS file system cannot be replayed. It is read as it is, and not written to. Mount and unmount it in the guest, or run xfs_repair there.",
    ),
    (
        "xfs.name",
        "A file in the guest's XFS file system is not of the kind that was asked for, or a name is none that a file can have.",
    ),
    ("xfs.not-found", "A name that was to be changed in the guest's XFS file system is not there."),
    (
        "xfs.read-only",
        "A change was asked of an XFS file system that was opened for reading, or that this program cannot change.",
    ),
    ("xfs.space", "The guest's XFS file system has no room for the change, or keeps what is left for itself."),
];
