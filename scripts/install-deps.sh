#!/usr/bin/env bash
# Installs the distribution's packages that building, testing and the demo need: Debian 12 and 13, Ubuntu 22.04 and 24.04; and, with `test`,
# the emulators of object stores. Does nothing, in well under a second, when all of them are there. Rust itself is the user's choice and is only checked.
set -euo pipefail

# The crate's C code, and libFuzzer's C++.
build=(ca-certificates g++ gcc libc6-dev make pkg-config)
# The fixture guest: built in a chroot on a loop device, from packages whose signatures are checked (Ubuntu lacks the keys).
guest=(debian-archive-keyring e2fsprogs fdisk mmdebstrap mount util-linux zstd)
# What the tests compare with, and the machine they boot.
oracles=(
    acl attr btrfs-progs bzip2 chntpw cpio db-util dnf dosfstools exfat-fuse exfatprogs fio fuse3 genisoimage grub-common gzip ifupdown kmod libarchive-tools libhivex-bin
    libnbd-bin libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu libwin-hivex-perl libxml2-utils mtools nbdkit netplan.io nginx-light ntfs-3g openssh-client openssh-server openssl p7zip-full
    pacman-package-manager parted psmisc python3 python3-venv python3-libnbd python3-libvhdi python3-libvmdk python3-jsonschema python3-pycdlib rpm selinux-utils squashfs-tools
    strace sudo systemd systemd-journal-remote tar udftools xfsprogs xorriso xz-utils
)
qemu=(ovmf qemu-system-x86 qemu-utils)
# With `remote`: what benchmarks over a line are compared with. With `zoo`: the small machine that makes volumes of LVM, MD and LUKS, made of what is installed here, a kernel too.
more=()

main() {
    check_rust
    [ "${1:-}" != remote ] || more=(curl iproute2 qemu-block-extra)
    [ "${1:-}" != zoo ] || more=(cryptsetup-bin f2fs-tools guestfs-tools libguestfs-tools lvm2 lz4 lzop mdadm python3-cryptography ubuntu-keyring "$(kernel)")
    local missing
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -eq 0 ] || install_missing
    [ "${1:-}" != test ] || "$(dirname "${BASH_SOURCE[0]}")/install-clouds.sh" >/dev/null
}

install_missing() {
    echo "install-deps: installing ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "install-deps: no apt-get here; install the equivalents of these packages by hand: ${missing[*]}" >&2
        exit 1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive bash -euo pipefail -c "$(declare -f install mirror_of); install \"\$@\"" install "${missing[@]}"
}

# Debian keeps the status of removed packages too, so only "installed" counts.
missing_packages() {
    local package
    for package in "${build[@]}" "${guest[@]}" "${oracles[@]}" "${qemu[@]}" "${more[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# Any kernel of the distribution does for the appliance.
kernel() {
    local ID=debian
    # shellcheck source=/dev/null
    . /etc/os-release
    if [ "$ID" = ubuntu ]; then echo linux-image-virtual; else echo "linux-image-$(dpkg --print-architecture)"; fi
}

install() {
    local apt=(apt-get -q -o DPkg::Lock::Timeout=600) release=()
    # shellcheck source=/dev/null
    . /etc/os-release
    "${apt[@]}" update
    # Debian 12's own QEMU is old, and machines that already have the newer qemu-utils cannot mix the two.
    if [ "$VERSION_CODENAME" = bookworm ]; then
        if ! apt-get indextargets --format '$(RELEASE)' | grep -x bookworm-backports >/dev/null; then
            echo "deb $(mirror_of bookworm) bookworm-backports main" >/etc/apt/sources.list.d/bookworm-backports.list
            "${apt[@]}" update
        fi
        release=(-t bookworm-backports)
    fi
    local package plain=() newest=()
    for package; do
        case $package in
            qemu-*) newest+=("$package") ;;
            *) plain+=("$package") ;;
        esac
    done
    # The tests start the servers that they need; nothing else on this machine is to listen because of them.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    [ "${#plain[@]}" -eq 0 ] || "${apt[@]}" install -y --no-install-recommends "${plain[@]}"
    [ "${#newest[@]}" -eq 0 ] || "${apt[@]}" install -y --no-install-recommends "${release[@]}" "${newest[@]}"
    if [[ " ${plain[*]} " == *" openssh-server "* ]]; then
        systemctl --quiet disable ssh.service ssh.socket 2>/dev/null || true
    fi
}

# The mirror from which this machine takes the release $1.
mirror_of() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk -v release="$1" '$2 == release { print $1; exit }'
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "install-deps: packages are missing, and installing them needs root or sudo" >&2
        exit 1
    fi
}

check_rust() {
    local component
    if ! command -v cargo >/dev/null; then
        echo "install-deps: cargo was not found: install Rust 1.95 or newer (https://rustup.rs)" >&2
        exit 1
    fi
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || { echo "install-deps: cargo $component was not found" >&2; exit 1; }
        rustup component add "${component/#fmt/rustfmt}"
    done
}

main "$@"
