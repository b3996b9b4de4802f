//! Scripts that run once, at the first boot: one job of the guest's init runs them in order, and switches itself off.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{FIX, Script, WHY, absent, bad_value, services};
use crate::error::Result;
use crate::fix::draft::{Draft, Put};
use crate::inspect::Init;

const DIR: &str = "/usr/local/lib/hyper2kvm/first-boot";
const JOB: &str = "hyper2kvm-first-boot";

/// What runs the scripts. One that ends well is marked as done, one that does not as failed; neither runs again.
const RUNNER: &str = r#"#!/bin/sh
# Runs the scripts of the first boot after the migration, in order, each once. What they print is in the log.
dir=/usr/local/lib/hyper2kvm/first-boot
log=/var/log/hyper2kvm-first-boot.log
result=0
for script in "$dir"/scripts/*; do
    case "$script" in
        *.done | *.failed | *'*') continue ;;
    esac
    echo "== $script" >>"$log"
    # Marked before it runs: a script that restarts the machine does not run again.
    mv "$script" "$script.done"
    if ! "$script.done" >>"$log" 2>&1 </dev/null; then
        mv "$script.done" "$script.failed"
        echo "== $script failed" >>"$log"
        result=1
    fi
done
rm -f /etc/systemd/system/multi-user.target.wants/hyper2kvm-first-boot.service
rm -f /etc/runlevels/default/hyper2kvm-first-boot
rm -f /etc/rc[2-5].d/S99hyper2kvm-first-boot /etc/rc.d/rc[2-5].d/S99hyper2kvm-first-boot \
    /etc/init.d/rc[2-5].d/S99hyper2kvm-first-boot
exit $result
"#;

const UNIT: &str = "[Unit]
Description=Scripts of the first boot after the migration
Wants=network-online.target
After=network-online.target local-fs.target

[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/lib/hyper2kvm/first-boot/run
TimeoutStartSec=0

[Install]
WantedBy=multi-user.target
";

const OPENRC: &str = "#!/sbin/openrc-run
description=\"Scripts of the first boot after the migration\"
depend() {
    need localmount
    after net
}
start() {
    ebegin \"Running the scripts of the first boot\"
    /bin/sh /usr/local/lib/hyper2kvm/first-boot/run
    eend $?
}
";

const SYSV: &str = "#!/bin/sh
# chkconfig: 2345 99 01
# description: Scripts of the first boot after the migration
### BEGIN INIT INFO
# Provides:          hyper2kvm-first-boot
# Required-Start:    $all
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Scripts of the first boot after the migration
### END INIT INFO
case \"$1\" in
    start) /bin/sh /usr/local/lib/hyper2kvm/first-boot/run ;;
esac
";

pub(super) fn plan(draft: &mut Draft<'_>, scripts: &[&Script]) -> Result<()> {
    if scripts.is_empty() {
        return Ok(());
    }
    for (index, script) in scripts.iter().enumerate() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_marked = script.name.ends_with(".done") || script.name.ends_with(".failed");
        if script.name.is_empty() || script.name.len() > 100 || !script.name.chars().all(is_plain) || is_marked {
            return Err(bad_value("name of a script", &script.name));
        }
        if !script.content.starts_with(b"#!") {
            return Err(bad_value("script: its first line does not say what runs it (#!/bin/sh)", &script.name));
        }
        let path = format!("{DIR}/scripts/{:03}-{}", index.saturating_add(1), script.name);
        let put = Put { is_private: true, ..Put::new(0o700) };
        draft.put(FIX, &path, &put, script.content.clone(), "put a script of the first boot", WHY)?;
    }
    let what = "run the scripts of the first boot";
    let text = |text: &str| text.as_bytes().to_vec();
    draft.put(FIX, &format!("{DIR}/run"), &Put::new(0o755), text(RUNNER), what, WHY)?;
    match draft.facts().init {
        Init::Systemd(_) => {
            let unit = format!("/etc/systemd/system/{JOB}.service");
            draft.put(FIX, &unit, &Put::new(0o644), text(UNIT), what, WHY)?;
            let link = format!("/etc/systemd/system/multi-user.target.wants/{JOB}.service");
            draft.link(FIX, &link, &unit, what, WHY)
        }
        Init::Openrc => script_of_init(draft, OPENRC, what),
        Init::Sysvinit | Init::Upstart => script_of_init(draft, SYSV, what),
        Init::Runit | Init::Unknown => Err(absent(
            "the guest has no init that could run scripts of the first boot",
            "runit, or none that is known",
        )),
    }
}

fn script_of_init(draft: &mut Draft<'_>, text: &str, what: &str) -> Result<()> {
    let path = format!("/etc/init.d/{JOB}");
    draft.put(FIX, &path, &Put::new(0o755), text.as_bytes().to_vec(), what, WHY)?;
    services::by_run_level(draft, JOB)
}
