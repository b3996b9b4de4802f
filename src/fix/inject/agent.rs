//! The QEMU guest agent: a script of the first boot installs it, from the guest's own repositories or from a package that is given.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{FIX, GuestAgent, Script, WHY, absent, bad_value};
use crate::error::Result;
use crate::fix::draft::{Draft, Put};

/// Where the package lies until it is installed.
const DIR: &str = "/usr/local/lib/hyper2kvm/packages";

const START: &str = r#"#!/bin/sh
# Installs the QEMU guest agent and starts it.
set -e
"#;

/// From the guest's own repositories.
const INSTALL: &str = r#"name=qemu-guest-agent
if command -v apt-get >/dev/null 2>&1; then
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get -q update || true
    apt-get -q -y install "$name"
elif command -v dnf >/dev/null 2>&1; then
    dnf -y install "$name"
elif command -v yum >/dev/null 2>&1; then
    yum -y install "$name"
elif command -v zypper >/dev/null 2>&1; then
    zypper --non-interactive install "$name"
elif command -v tdnf >/dev/null 2>&1; then
    tdnf -y install "$name"
elif command -v apk >/dev/null 2>&1; then
    apk add "$name"
elif command -v pacman >/dev/null 2>&1; then
    pacman -Sy --noconfirm --needed "$name"
else
    echo "there is no package manager that is known" >&2
    exit 1
fi
"#;

const SWITCH_ON: &str = r#"if [ -d /run/systemd/system ]; then
    systemctl enable qemu-guest-agent || true
    systemctl start qemu-guest-agent
elif command -v rc-update >/dev/null 2>&1; then
    rc-update add qemu-guest-agent default
    rc-service qemu-guest-agent start
else
    for name in qemu-ga qemu-guest-agent; do
        [ -x "/etc/init.d/$name" ] || continue
        if command -v chkconfig >/dev/null 2>&1; then
            chkconfig "$name" on
        fi
        "/etc/init.d/$name" start
    done
fi
"#;

/// The script that installs the agent, with the package put where it looks for it. `None` when the guest has the agent.
pub(super) fn plan(draft: &mut Draft<'_>, agent: &GuestAgent) -> Result<Option<Script>> {
    if has_agent(draft)? {
        return Ok(None);
    }
    let install = match agent {
        GuestAgent::Install => INSTALL.to_owned(),
        GuestAgent::Package { name, content } => {
            let command = command(draft, name, content)?;
            let path = format!("{DIR}/{name}");
            draft.put(FIX, &path, &Put::new(0o644), content.clone(), "put the guest agent's package", WHY)?;
            format!("{command} {path}\n")
        }
    };
    let content = format!("{START}{install}{SWITCH_ON}").into_bytes();
    Ok(Some(Script { name: "guest-agent".to_owned(), content }))
}

fn has_agent(draft: &Draft<'_>) -> Result<bool> {
    for path in ["/usr/bin/qemu-ga", "/usr/sbin/qemu-ga"] {
        if draft.tree().is_file(path)? {
            return Ok(true);
        }
    }
    Ok(draft.facts().tools.iter().any(|tool| tool.unit == Some("qemu-guest-agent.service")))
}

/// What installs a package, told by its name and by how its content begins.
fn command(draft: &Draft<'_>, name: &str, content: &[u8]) -> Result<&'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    let is_name = name.len() <= 200 && !name.starts_with(['.', '-']) && name.chars().all(is_plain);
    let command = match name.rsplit_once('.').map(|(_, end)| end).filter(|_| is_name) {
        Some("deb") if content.starts_with(b"!<arch>\n") => "dpkg -i",
        Some("rpm") if content.starts_with(b"\xed\xab\xee\xdb") => "rpm -U --replacepkgs",
        Some("apk") if content.starts_with(b"\x1f\x8b") || content.starts_with(b"ADB") => "apk add --allow-untrusted",
        Some("zst" | "xz") if name.contains(".pkg.tar.") => "pacman -U --noconfirm",
        _ => return Err(bad_value("package (.deb, .rpm, .apk, .pkg.tar.zst) of the guest agent", name)),
    };
    let program = command.split(' ').next().unwrap_or_default();
    for dir in ["/usr/bin", "/bin", "/sbin", "/usr/sbin"] {
        if draft.tree().is_file(format!("{dir}/{program}"))? {
            return Ok(command);
        }
    }
    Err(absent("the guest installs no packages of that kind: it lacks the program", program))
}
