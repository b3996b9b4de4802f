#!/usr/bin/env bash
# fuzz-seeds.sh [DIR]: puts small sound inputs for the fuzz targets into DIR/TARGET/seed-*, fuzz/corpus by default.
#
# What a fuzzer would need hours to find by itself: archives, images and tables that programs make, texts that parsers take as
# they are, and for targets that patch an image of their own the choice of each image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin
corpus=$(realpath -m "${1:-fuzz/corpus}")
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"

# seed TARGET NAME: what is on standard input.
seed() {
    mkdir -p "$corpus/$1"
    cat >"$corpus/$1/seed-$2"
}
# first TARGET COUNT: the numbers of the images that a target chooses from, without a patch.
first() {
    local number
    for ((number = 0; number < $2; number++)); do
        printf "\\x$(printf %02x "$number")" | seed "$1" "image-$number"
    done
}

first ext 4
first fat 3
first iso 4
first squashfs 6
first xfs 2
for target in btrfs exfat journal_file ntfs uki udf windows; do
    head -c 16 /dev/zero | seed "$target" patch
done
# Every kind of change to a sound file system, and to one with a patch.
for ((kind = 0; kind < 14; kind++)); do
    changes+=$(printf '\\x%02x\\x01\\x0e\\x40' "$kind")
done
for target in btrfs_write xfs_write; do
    # shellcheck disable=SC2059
    printf "\\0$changes$changes" | seed "$target" sound
    # shellcheck disable=SC2059
    printf "\\1\\0\\0\\0\\0\\0\\0\\0\\0$changes" | seed "$target" patch
done

# Images of disks.
seq 2000 >text
truncate -s 9000 text
cp text raw
truncate -s 1M raw
for options in 'qcow2 -o cluster_size=512' 'qcow2 -o cluster_size=512,compat=0.10' 'qcow2 -c -o cluster_size=512' \
    'qcow2 -o cluster_size=16384,extended_l2=on'; do
    # shellcheck disable=SC2086
    qemu-img convert -f raw -O $options raw image
    seed qcow2 "$(tr -cd 'a-z0-9' <<<"$options")" <image
done
qemu-img snapshot -c a image
qemu-img bitmap --add image b
seed qcow2 snapshot <image
truncate -s 1M empty
for pair in vdi:vdi vpc:vhd vmdk:vmdk_sparse; do
    qemu-img convert -f raw -O "${pair%:*}" empty image
    seed "${pair#*:}" empty <image
done
qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on empty image
tail -c 512 image | seed vhd footer
for target in vmdk_sparse vmdk_stream; do
    qemu-img convert -f raw -O vmdk -o subformat=streamOptimized raw image
    seed "$target" stream <image
done
for image in "$corpus"/qcow2/seed-qcow2oclustersize512 "$corpus"/vdi/seed-empty "$corpus"/vhd/seed-empty image; do
    head -c 4096 "$image" | seed probe "$(basename "$(dirname "$image")")-$(basename "$image")"
done
printf 'vhdxfile' | seed probe vhdx
printf 'KDMV\1\0\0\0' | seed probe vmdk

# Tables of partitions.
truncate -s 96K table
printf 'label: dos\n2,20,83\n30,100,5\n40,20\n70,20\n' | sfdisk -q --force table
seed partition_table mbr <table
truncate -s 0 table
truncate -s 96K table
printf 'label: gpt\nfirst-lba: 34\nstart=40, size=20, name=name\nstart=70, size=10\n' | sfdisk -q --force table
seed partition_table gpt <table
head -c 4096 /dev/zero | seed partition_table empty

# Archives and what is compressed.
mkdir -p d/e
echo content >d/file
echo x >"d/e/$(printf '%0120d' 7)"
ln -s file d/link
tar -cf - --format=ustar d/file d/link | seed tar ustar
tar -cf - --format=gnu d | seed tar gnu
tar -cf - --format=pax d | seed tar pax
for packer in 'gzip -9' 'gzip -1' bzip2 'xz -0 --block-size=4096' 'xz -0' zstd; do
    head -c 20000 raw | $packer -c | seed packed "$(tr -cd 'a-z0-9' <<<"$packer")"
done
(gzip -c text; gzip -c text) | seed packed members

# Packages of machines.
cat >a.ovf <<'OVF'
<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="f" ovf:href="a.vmdk" ovf:size="9000"/></References>
<DiskSection><Info>disks</Info><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<NetworkSection><Info>n</Info><Network ovf:name="n"/></NetworkSection>
<VirtualSystem ovf:id="a"><Info>a</Info><Name>a</Name><VirtualHardwareSection><Info>h</Info>
<Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
<Item><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits></Item>
<Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:Address>0</rasd:Address></Item>
<Item><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>ovf:/disk/d</rasd:HostResource><rasd:Parent>3</rasd:Parent><rasd:AddressOnParent>0</rasd:AddressOnParent></Item>
<Item><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceType>10</rasd:ResourceType><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:Connection>n</rasd:Connection></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
OVF
cp text a.vmdk
printf 'SHA256(%s)= %s\n' a.ovf "$(sha256sum <a.ovf | cut -d' ' -f1)" a.vmdk "$(sha256sum <a.vmdk | cut -d' ' -f1)" >a.mf
seed ovf ovf <a.ovf
seed ovf manifest <a.mf
tar -cf - --format=ustar a.ovf a.mf a.vmdk | seed ova ova
seed vmx vmx <<'VMX'
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "13"
displayName = "a"
guestOS = "debian10-64"
firmware = "efi"
memSize = "512"
numvcpus = "2"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "a|20b.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.address = "00:50:56:00:00:01"
VMX
seed vmdk_descriptor descriptor <<'VMDK'
version=1
CID=fffffffe
parentCID=ffffffff
createType="twoGbMaxExtentFlat"
RW 2048 FLAT "a-f001.vmdk" 0
RW 2048 ZERO
RW 2048 SPARSE "a-s002.vmdk"
ddb.adapterType = "lsilogic"
ddb.geometry.sectors = "63"
VMDK

# An initramfs: plain, compressed, and with microcode before it.
mkdir -p i/usr/lib/modules/6/kernel i/kernel/x86/microcode
echo 'kernel/a.ko:' >i/usr/lib/modules/6/modules.dep
echo code >i/usr/lib/modules/6/kernel/a.ko
ln -s usr/lib i/lib
echo x >i/kernel/x86/microcode/GenuineIntel.bin
(cd i && find usr lib | sort | cpio --quiet -o -H newc) >plain
(cd i && find kernel | sort | cpio --quiet -o -H newc) >early
seed initramfs plain <plain
for packer in 'gzip' 'xz -0 --check=crc32' 'zstd' 'bzip2'; do
    $packer -c <plain | seed initramfs "$(tr -cd 'a-z0-9' <<<"$packer")"
done
(cat early; gzip -c <plain) | seed initramfs early

# Databases of packages: a byte for the file, two for where the one beside it begins.
python3 - <<'PY'
import sqlite3

database = sqlite3.connect("rpmdb.sqlite")
database.execute("PRAGMA page_size=512")
database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
database.execute("INSERT INTO Packages(blob) VALUES (x'00000001000000060000'), (zeroblob(900))")
database.commit()
PY
(printf '\0\377\377'; cat rpmdb.sqlite) | seed packages sqlite
(printf '\3\377\377'; printf 'Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nMaintainer: m\nDescription: d\n more\n\nPackage: b\nStatus: deinstall ok config-files\n\n') |
    seed packages dpkg
(printf '\4\377\377'; printf 'P:a\nV:1-r0\nA:x86_64\nT:d\no:a\n\nP:b\nV:2\n\n') | seed packages apk
(printf '\5\377\377'; printf '%%NAME%%\na\n\n%%VERSION%%\n1-1\n\n%%ARCH%%\nx86_64\n\n') | seed packages pacman

# Texts: the files of a guest, units and logs, expressions.
part() {
    printf "\\x$(printf %02x "$1")"
    cat
    printf '\377'
}
guest() { part "$1" | seed guest_files "file-$1"; }
guest 0 <<<$'/dev/sda1 / ext4 defaults 0 1\nUUID=U /data xfs nofail 0 2\n/swap none swap sw 0 0'
guest 1 <<<$'set default="0"\nmenuentry \'a\' {\n linux /boot/vmlinuz-6.1 root=/dev/sda1 ro\n initrd /boot/initrd.img-6.1\n}\nsubmenu b {\n}'
guest 2 <<<$'default 0\ntitle a\nroot (hd0,0)\nkernel /boot/vmlinuz-6.1 root=/dev/sda1\ninitrd /boot/initrd'
guest 3 <<<$'title a\nversion 6.1\nlinux /vmlinuz-6.1\ninitrd /initrd-6.1\noptions root=/dev/sda1 $kernelopts'
guest 4 <<<$'DEFAULT a\nLABEL a\n KERNEL /vmlinuz-6.1\n APPEND root=/dev/sda1 initrd=/i'
guest 5 <<<$'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX="root=/dev/sda1 quiet"'
guest 6 <<<$'luks-a UUID=U none luks\nb /dev/sda2 /etc/key luks,keyfile-offset=1'
guest 7 <<<'root=/dev/sda1 ro quiet'
guest 8 <<<$'vmw_pvscsi\nsd_mod'
guest 9 <<<'RESUME=/dev/sda2'
guest 10 <<<$'auto ens192\niface ens192 inet static\n address 10.0.0.2/24\n gateway 10.0.0.1\nsource /etc/network/interfaces.d/*'
guest 11 <<<$'network:\n  version: 2\n  ethernets:\n    ens192:\n      dhcp4: true\n      match: {macaddress: 00:50:56:00:00:01}'
guest 12 <<<$'[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n[ipv4]\nmethod=manual\naddress1=10.0.0.2/24,10.0.0.1'
guest 13 <<<$'[Match]\nName=ens192\n[Network]\nDHCP=yes\n[Address]\nAddress=10.0.0.2/24'
guest 14 <<<$'DEVICE=eth0\nHWADDR=00:50:56:00:00:01\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=10.0.0.2\nPREFIX=24'
guest 15 <<<'SUBSYSTEM=="net", ATTR{address}=="00:50:56:00:00:01", NAME="eth0"'
guest 16 <<<$'ID=debian\nVERSION_ID="12"\nPRETTY_NAME=\'Debian\''
guest 18 <<<$'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04'
guest 19 <<<$'SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4'
guest 20 <<<$'boot=/dev/sda\nroot=/dev/sda1\nimage=/boot/vmlinuz\n label=a\n append="quiet"'
guest 21 <<<$'SELINUX=enforcing\nSELINUXTYPE=targeted'
guest 22 <<<$'[NetDev]\nName=br0\nKind=bridge'
guest 23 <<<$'STARTMODE=auto\nBOOTPROTO=static\nIPADDR=10.0.0.2/24\nBONDING_SLAVE_0=eth0'
guest 24 <<<'default 10.0.0.1 - -'
guest 25 <<<'<interface><name>eth0</name><ipv4:static><address><local>10.0.0.2/24</local></address></ipv4:static></interface>'
guest 26 <<<$'# GRUB Environment Block\nsaved_entry=a\nkernelopts=root=/dev/sda1 ro'
guest 27 <<<$'default a.conf\ntimeout 3'
guest 29 <<<$'lease {\n interface "eth0";\n fixed-address 10.0.0.2;\n expire 1 2026/01/01 00:00:00;\n}'
cat "$corpus"/guest_files/seed-file-{0,1,6,16} | seed guest_files together
{
    part 0 <<<$'[Unit]\nDescription=a\nAfter=b.timer\n[Service]\nExecStart=/bin/sh -c a \\\n b\n[Install]\nWantedBy=default.target'
    part 1 <<<$'[Service]\nRestartSec=1min 5s\nEnvironment="A=b c"'
    part 2 <<<$'[Service]\nExecStart=/bin/%i %%'
    part 3 <<<$'[Timer]\nOnCalendar=Mon..Fri *-*-* 02:30:00\nOnBootSec=15min\nUnit=a.service'
    part 4 <<<$'[Socket]\nListenStream=/run/c\nListenStream=[::1]:80'
    part 5 <<<$'[Unit]\nRequires=a.service'
} | seed units units
part 7 <<<$'Jan  1 16:45:25 web sshd[812]: Accepted\n2026-01-01T16:45:25.250000+01:00 web kernel: [    0.000000] Linux' | seed units syslog
number=0
for expression in 'Mon..Fri *-*-* 02:30:00' '*-*~03/7:0/5 Europe/Berlin' 'Sat,Sun 2026..2030-1,7-1..15 8..18/2:00' quarterly '@1790000000' \
    '*:*:0/0.25' '2h 5min 3.5s' 'daily UTC' '*-02-29'; do
    number=$((number + 1))
    printf '%s' "$expression" | seed calendar "$number"
done
printf 'a\33]0;x\7\342\200\256\377\0' | seed escape escapes
part='HTTP/1.1 206 Partial Content\r\nETag: "a"\r\nContent-Length: 4\r\nContent-Range: bytes'
printf "machine 127.0.0.1 login a password b\n\377$part 0-3/8\r\n\r\nabcd\377$part 4-7/8\r\n\r\nefgh" | seed http parts
printf '\377HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n\377HTTP/1.1 503 Busy\r\nRetry-After: 400\r\n\r\n' | seed http moved
ssh-keygen -q -t ed25519 -N '' -C '' -f hostkey
{ printf '\0store\0# keys\nstore,[b]:2 %s\n@revoked * ' "$(cat hostkey.pub)"; cat hostkey.pub; printf '|1|AAAA|AAAA '; cat hostkey.pub; } | seed ssh known
printf '\1store\0Include x\nHost s*e !b "c d"\n HostName=%%h.net\n Port 23\n IdentityFile ~/${A}\nMatch host store user me\n ProxyJump a,b:2\n\0Host *\n User "me"\n' | seed ssh config
seq 500 | seed deflate numbers

# What is described by structures: made field by field.
python3 - "$corpus" <<'PY'
import os, struct, subprocess, sys

corpus = sys.argv[1]


def seed(target, name, data):
    os.makedirs(f"{corpus}/{target}", exist_ok=True)
    with open(f"{corpus}/{target}/seed-{name}", "wb") as file:
        file.write(data)


# VHDX: the parts that the target puts in their places, metadata before the table.
subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", "raw", "image"], check=True)
image = bytearray(open("image", "rb").read())
M, region, found = 1 << 20, 192 << 10, {}
for number in range(struct.unpack_from("<I", image, region + 8)[0]):
    at = region + 16 + 32 * number
    is_table = image[at : at + 4] == b"\x66\x77\xc2\x2d"
    found[is_table] = struct.unpack_from("<Q", image, at + 16)[0]
    struct.pack_into("<Q", image, at + 16, 3 * M if is_table else 2 * M)
table, metadata = found[True], found[False]
items = bytearray(image[metadata : metadata + 224])
first = min(struct.unpack_from("<I", items, at + 16)[0] for at in range(32, 192, 32) if any(items[at : at + 16]))
for at in range(32, 224, 32):
    if any(items[at : at + 16]):
        struct.pack_into("<I", items, at + 16, struct.unpack_from("<I", items, at + 16)[0] - first + (128 << 10))
parts = [image[64 << 10 :][:96], image[region:][:96], bytes(12 << 10), items]
parts += [image[metadata + first :][:512], image[table:][:256]]
seed("vhdx", "sound", b"".join(bytes(part) for part in parts))

# A clock with two changes a year.
head = lambda: b"TZif2" + bytes(15) + struct.pack(">6I", 0, 0, 0, 0, 1, 4) + struct.pack(">i", 3600) + b"\0\0CET\0"
seed("calendar", "zone", b"*-03-28 02:30:00\xff\0" + head() + head() + b"\nCET-1CEST,M3.5.0,M10.5.0/3\n")

# A hive with a key below its root and a value, then without a log.
CELLS = 0x20


def cell(body):
    size = (len(body) + 4 + 7) & ~7
    return struct.pack("<i", -size) + body.ljust(size - 4, b"\0")


def key(name, flags, parent, subkeys, subkey_list, values, value_list):
    head = struct.pack("<2sHQIIIIIIIII", b"nk", flags, 0, 0, parent, subkeys, 0, subkey_list, 0xFFFFFFFF, values, value_list, 0xFFFFFFFF)
    return head + struct.pack("<IIIIIIHH", 0xFFFFFFFF, 0, 0, 0, 0, 0, len(name), 0) + name


bodies, places, at = [], [], CELLS
sizes = [key(b"root", 0, 0, 0, 0, 0, 0), b"lf" + bytes(10), key(b"below", 0, 0, 0, 0, 0, 0), bytes(4), bytes(21)]
for body in sizes:
    places.append(at)
    at += len(cell(body))
root, listed, below, values, value = places
bodies = [
    key(b"root", 0x2C, 0xFFFFFFFF, 1, listed, 0, 0xFFFFFFFF),
    struct.pack("<2sHI4s", b"lf", 1, below, b"belo"),
    key(b"below", 0x20, root, 0, 0xFFFFFFFF, 1, values),
    struct.pack("<I", value),
    struct.pack("<2sHIIIHH", b"vk", 1, 0x80000004, 7, 4, 1, 0) + b"v",
]
cells = b"".join(cell(body) for body in bodies)
cells += struct.pack("<i", 4096 - 32 - len(cells)).ljust(4096 - 32 - len(cells), b"\0")
bins = struct.pack("<4sIIQQI", b"hbin", 0, 4096, 0, 0, 0) + cells
base = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, 0, 1, 5, 0, 1, root, 4096, 1).ljust(4096, b"\0")
hive = base + bins
log = struct.pack("<4sIIQIIIIIII", b"regf", 1, 2, 0, 1, 5, 6, 1, root, 4096, 1).ljust(512, b"\0")
seed("hive", "one-key", struct.pack("<HH", len(hive), len(hive)) + hive)
seed("hive", "empty-log", struct.pack("<HH", len(hive), len(hive) + 512) + hive + log)

# LVM's text, with what stripes, mirrors, thin volumes and snapshots need.
seed("lvm", "group", b"""vg {
id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
seqno = 1
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
extent_size = 8
physical_volumes {
pv0 {
id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
status = ["ALLOCATABLE"]
pe_start = 256
pe_count = 100
}
}
logical_volumes {
a {
id = "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb"
status = ["READ", "WRITE", "VISIBLE"]
segment_count = 2
segment1 {
start_extent = 0
extent_count = 4
type = "striped"
stripe_count = 2
stripe_size = 8
stripes = ["pv0", 0, "pv0", 10]
}
segment2 {
start_extent = 4
extent_count = 1
type = "striped"
stripe_count = 1
stripes = ["pv0", 20]
}
}
}
}
""")

# Superblocks of arrays: version 1.2 as level 1 and 5, version 0.90.
for level, kind in ((1, 1), (5, 2), (0, 1), (0xFFFFFFFF, 1)):
    sb = bytearray(512)
    struct.pack_into("<II", sb, 0, 0xA92B4EFC, 1)
    sb[16:32] = bytes(range(16))
    struct.pack_into("<IIQII", sb, 72, level, 2, 1024, 128, kind + 1)
    struct.pack_into("<QQ", sb, 128, 128, 1024)
    struct.pack_into("<I", sb, 220, 4)
    struct.pack_into("<HHHH", sb, 256, 0, 1, 2, 3)
    seed("md", f"level-{level & 0xff}", bytes([kind]) + bytes(sb))

# Volumes of LUKS.
seed("luks", "two", b"\0" + b"""{"keyslots":{"0":{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},
"area":{"type":"raw","offset":"32768","size":"258048","encryption":"aes-xts-plain64","key_size":64},
"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1,"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}},"tokens":{},
"segments":{"0":{"type":"crypt","offset":"524288","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}},
"digests":{"0":{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256","iterations":1,"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},
"config":{"json_size":"12288","keyslots_size":"16744448"}}""")
slot = struct.pack(">II32sII", 0x00AC71F3, 1, bytes(32), 8, 4000)
idle = struct.pack(">II32sII", 0xDEAD, 0, bytes(32), 0, 4000)
head = struct.pack(">6sH32s32s32sII20s32sI40s", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 1024, 64, bytes(20), bytes(32), 1, b"00000000-0000-4000-8000-000000000001")
seed("luks", "one", b"\1" + head + slot + idle * 7)

# Conversations of NBD: requests of each style, and a haggling client; replies, and a server's greeting.
requests = b"".join(struct.pack(">HHQQI", 0, kind, 1, 0, 512) for kind in (0, 3, 4, 6, 7)) + struct.pack(">HHQQI", 0, 2, 1, 0, 0)
seed("nbd_server", "simple", bytes([1 | 16 | 32]) + requests)
extended = b"".join(struct.pack(">HHQQQ", 0, kind, 1, 0, 512) for kind in (0, 3, 7))
seed("nbd_server", "extended", bytes([1 | 4 | 8 | 16]) + extended)
option = lambda number, data: b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data
go = struct.pack(">I", 1) + b"a" + struct.pack(">H", 0)
context = struct.pack(">I", 1) + b"a" + struct.pack(">II", 1, 15) + b"base:allocation"
seed("nbd_server", "haggle", b"\0" + struct.pack(">I", 3) + option(8, b"") + option(10, context) + option(3, b"") + option(7, go) + requests)
seed("nbd_client", "simple", bytes([0 | 16]) + struct.pack(">IIQ", 0x67446698, 0, 1) + bytes(1000))
chunk = lambda flags, kind, data: struct.pack(">IHHQI", 0x668E33EF, flags, kind, 1, len(data)) + data
seed("nbd_client", "structured", bytes([1 | 16]) + chunk(0, 1, struct.pack(">Q", 0) + bytes(500)) + chunk(1, 2, struct.pack(">QI", 500, 500)))
reply = lambda number, kind, data: struct.pack(">QIII", 0x3E889045565A9, number, kind, len(data)) + data
greeting = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
terms = struct.pack(">HQH", 0, 1 << 20, 1) + reply(7, 1, b"")
seed("nbd_client", "greeting", bytes([4]) + greeting + reply(7, 3, terms[:12]) + reply(7, 1, b""))
seed("nbd_client", "list", bytes([4 | 8]) + greeting + reply(3, 2, struct.pack(">I", 1) + b"a") + reply(3, 1, b""))

text = lambda bytes: struct.pack(">I", len(bytes)) + bytes
seed("ssh", "attributes", b"\x69" + struct.pack(">IQIII", 13, 1 << 30, 0o100644, 5, 6))
seed("ssh", "extended", b"\x69" + struct.pack(">II", 1 << 31, 1) + text(b"a@b") + text(b"c"))
seed("ssh", "handle", b"\x66" + text(b"h"))
seed("ssh", "data", b"\x67" + text(bytes(40)))
seed("ssh", "status", b"\x65" + struct.pack(">I", 2) + text(b"No such file") + text(b""))
seed("ssh", "greeting", b"\x02" + struct.pack(">I", 3) + text(b"limits@openssh.com") + text(b"1"))

# Records of a copy's journal behind its beginning.
seed("journal", "records", bytes([1, 2]) + bytes([5]) + b"\1\0\0\0\0" + bytes([17]) + b"\2" + bytes(16))
PY

# Every target has one.
cd - >"$work/back"
for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    compgen -G "$corpus/$target/seed-*" >"$work/found" || { echo "fuzz-seeds: $target has none" >&2; exit 1; }
done
