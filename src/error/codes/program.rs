//! Of commands, servers and boots.

/// Sorted by code.
pub(super) const CODES: &[(&str, &str)] = &[
    (
        "appliance.answer",
        "libguestfs answered with something that is not understood. It may be of another version than those that are known; --engine own does without.",
    ),
    (
        "appliance.drives",
        "A machine has more volumes with file systems than libguestfs takes as drives. --engine own has no such bound.",
    ),
    (
        "appliance.files",
        "A file system has more files than are looked at in an appliance. --engine own has no such bound.",
    ),
    (
        "appliance.lost",
        "guestfish or its appliance ended or does not answer any more; the message says what it told before. libguestfs-test-tool tells whether appliances run on this host.",
    ),
    (
        "appliance.missing",
        "--engine appliance needs guestfish, which is not installed. Install libguestfs-tools (Debian) or guestfs-tools (Fedora, SUSE).",
    ),
    (
        "appliance.mount",
        "The kernel in the appliance does not mount a file system. The message says why; it may not have a driver for it, or the file system is damaged.",
    ),
    ("appliance.name", "A name or value with a byte 0 in it was to be handed to libguestfs, which takes texts."),
    (
        "appliance.read-only",
        "A file system in the appliance lies on a volume that cannot be written, such as a degraded array.",
    ),
    (
        "appliance.refused",
        "The kernel in the appliance did not do what was asked of it, such as for want of space. The message says what.",
    ),
    (
        "appliance.start",
        "libguestfs's appliance does not start. libguestfs-test-tool tells why; on Ubuntu, users may not read the host's kernel, which it needs.",
    ),
    (
        "appliance.xattr",
        "An extended attribute with a byte 0 inside, such as an access control list, was to be set by libguestfs, which takes texts. --engine own does it.",
    ),
    (
        "attach.background",
        "The process that serves the devices in the background could not be started. The cause says why; --foreground does without.",
    ),
    ("attach.busy", "A device that is to be detached is mounted. Unmount it first; the message says where."),
    (
        "attach.end",
        "The process that serves the devices did not end when it was asked to. Something may still use a device: lsof tells.",
    ),
    (
        "attach.loop",
        "The system's losetup (util-linux) could not set up or free a loop device; the message quotes it. In a container, /dev/loop-control and the devices must be passed in.",
    ),
    (
        "attach.root",
        "Loop devices can be set up by root only. hyper2kvm mount shows the same disks as files, and hyper2kvm serve over NBD, to any user.",
    ),
    ("attach.state", "The records of what is attached, in /run/hyper2kvm, cannot be read. They belong to root."),
    (
        "attach.unknown",
        "No device of that name was attached by this program, or none was named. hyper2kvm detach --list shows what was.",
    ),
    (
        "bench.source",
        "A source has fewer bytes than one request of the measurement. Measure with smaller ones (--request) or a larger file.",
    ),
    ("bench.thread", "A thread of a measurement ended by itself. That is a mistake of this program; report it."),
    (
        "boot.choice",
        "A boot test was given a bus, card, firmware or format that it does not know. The message lists those it knows.",
    ),
    (
        "boot.disks",
        "A boot test was given more disks than its machine has places for on that bus. --bus virtio-scsi takes the most.",
    ),
    (
        "boot.firmware-missing",
        "A UEFI guest needs the OVMF firmware, which is not installed. Install ovmf (Debian), edk2-ovmf (Fedora) or qemu-ovmf-x86_64 (SUSE).",
    ),
    (
        "boot.pattern",
        "A pattern that a boot test shall wait for is not a regular expression. Brackets, dots and stars that are meant as they are need a backslash.",
    ),
    (
        "boot.qemu",
        "QEMU could not be started or ended with an error of its own, which the message quotes. The guest had no part in it.",
    ),
    (
        "boot.qemu-missing",
        "A boot test needs qemu-system-x86_64, which is not installed. Install the package qemu-system-x86 (Debian, Fedora) or qemu-x86 (SUSE).",
    ),
    (
        "fuse.already-mounted",
        "The directory is a mount point already, perhaps of an earlier run. Choose another one, or unmount it with fusermount3 -u DIR.",
    ),
    (
        "fuse.dead-mount",
        "The process that served a mount on this directory was killed, so every access says 'Transport endpoint is not connected'. Clear it with fusermount3 -u DIR.",
    ),
    (
        "fuse.device-denied",
        "This user may not open /dev/fuse. The package fuse3 brings a udev rule that gives it mode 0666.",
    ),
    (
        "fuse.device-missing",
        "There is no /dev/fuse. Load the kernel module with modprobe fuse; a container needs --device /dev/fuse.",
    ),
    (
        "fuse.helper-missing",
        "A user other than root mounts through the setuid program fusermount3, which is not installed. Install the package fuse3.",
    ),
    (
        "fuse.mount",
        "The operating system refused the mount; the cause says why. The directory must belong to you and be writable, and a container may forbid mounts.",
    ),
    ("fuse.place", "The mount point could not be looked at; the cause says why."),
    ("fuse.place-missing", "The mount point does not exist. Create the directory first."),
    ("fuse.place-not-directory", "The mount point is not a directory. Choose an empty directory."),
    ("fuse.place-not-empty", "The mount point has files in it, which the mount would hide. Choose an empty directory."),
    (
        "fuse.session",
        "The connection to the kernel broke while a mount was served; the cause says why. Unmount the directory with fusermount3 -u DIR and mount again.",
    ),
    (
        "fuse.unmount",
        "The operating system refused to unmount; the cause says why. Try fusermount3 -u DIR once the programs that use it have ended.",
    ),
    (
        "host.signals",
        "The operating system refused to deliver signals to this process, so it could not be stopped cleanly.",
    ),
    (
        "libvirt.path",
        "The path of an image cannot stand in a libvirt domain: it is relative, not UTF-8, or has control characters. Choose another output directory or name.",
    ),
    (
        "libvirt.secure-boot",
        "Secure boot needs system management mode, which only the machine type q35 has. Choose q35 or leave secure boot off.",
    ),
    (
        "serve.address",
        "serve needs to know where: a Unix socket (--unix), a TCP address (--tcp), its own standard input and output (--stdio), a command that it runs (--run), or a socket that systemd listens on and passes (Accept=no).",
    ),
    (
        "serve.open",
        "The address can be reached by others, and NBD without TLS has no authentication. Demand certificates with --tls-certificates, serve on 127.0.0.1 or a Unix socket, or say --i-know-this-is-open.",
    ),
    ("serve.run", "The command that --run was given could not be run or waited for. The cause says why."),
    ("serve.start", "The NBD server could not bind its address or start its threads. The cause says why."),
    (
        "serve.tls",
        "--tls-certificates names a folder with server-cert.pem, server-key.pem and, unless --tls-any-client is given, ca-cert.pem with the authority that signs the clients' certificates. One is missing, malformed, or does not belong with the others.",
    ),
    (
        "session.epoch",
        "SOURCE_DATE_EPOCH is the time that is written into what is made, in whole seconds since 1970, so that two runs make the same. Unset it to have the time of the run.",
    ),
    (
        "session.interrupted",
        "A signal or the caller asked the command to stop. Nothing appears under the final name; run the same command again.",
    ),
    (
        "test.format",
        "QEMU boots qcow2, raw and vmdk images here. Convert or migrate the source first and test the result.",
    ),
    (
        "test.no-boot",
        "The boot test saw no sign that the guest came up. The console log, whose path is shown, says how far it came.",
    ),
    (
        "usage.bus",
        "Migrated machines sit on virtio-blk, virtio-scsi or sata. The other buses exist for boot tests only.",
    ),
    (
        "usage.mac",
        "--mac was given one address for two network cards, or names one that no card of the machine has. Each card of a machine has an address of its own.",
    ),
    (
        "usage.pattern",
        "The pattern for names is not one: brackets and braces must be closed. * stands for any characters, ? for one, [a-z] for one of these, {one,other} for either.",
    ),
    ("usage.terminal", "An archive would go to the terminal. Name a file for it, or pipe it into another program."),
    ("usage.topic", "`hyper2kvm help` knows commands and error codes; the word given is neither."),
];
