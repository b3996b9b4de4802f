//! `serve --fix`: a guest made for VMware boots on virtio straight from its OVA, which nobody has copied or changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, wait_for};
use crate::support::{Bus, Lab, Machine, NOBODY, Variant, tools};

#[test]
fn it_boots_on_virtio_before_a_byte_is_copied() {
    let lab = Lab::new();
    let server = Server::start_with(&Variant::Dirty.ova(), &["--fix"], &lab);
    let uri = server.uri();
    // QEMU keeps what the guest writes in a file of its own.
    let machine = Machine::new(Path::new(&uri), "raw", Bus::VirtioBlk);
    let facts = machine.boot().up();
    assert_eq!(facts["root"], "/dev/vda1 ext4");
    assert!(facts["ip"].contains("=10.0.2.15/24"), "no address: {facts:?}");
    assert_eq!((facts["failed"].as_str(), facts["fresh"].as_str()), ("", "50"));
}

#[test]
fn it_boots_and_writes_into_the_overlay() {
    let lab = Lab::new();
    let server = Server::start_with(&Variant::Plain.ova(), &["--fix", "--writable"], &lab);
    let uri = server.uri();
    let facts = Machine::new(Path::new(&uri), "raw", Bus::VirtioScsi).boot_in_place();
    let facts = facts.up();
    assert_eq!(facts["root"], "/dev/sda1 ext4");
    assert_eq!(facts["failed"], "");
    server.running.terminate().exits_with(0);
}

#[test]
fn under_libvirt_it_runs_while_its_disk_is_pulled_here_and_boots_from_that_again() {
    let lab = Lab::new();
    let server = Server::start_with(&Variant::Plain.ova(), &["--fix"], &lab);
    let libvirt = Libvirt::new(&lab);
    let disk = libvirt.home.join("local.qcow2");
    let create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &server.uri()];
    libvirt.ok(&[&create[..], &[&disk.display().to_string()]].concat());
    libvirt.define(&disk);

    let console = libvirt.boot();
    assert!(console.contains("blk=[vda:virtio_blk]"), "{console}");
    libvirt.virsh(&["blockpull", "guest", "vda", "--wait"]);
    libvirt.virsh(&["destroy", "guest"]);
    server.running.terminate().exits_with(0);

    assert!(!tools::ok("qemu-img", ["info".as_ref(), disk.as_os_str()]).contains("backing file"));
    tools::assert_clean_qcow2(&disk);
    let console = libvirt.boot();
    assert!(console.contains("root=[/dev/vda1 ext4]") && console.contains("failed=[]"), "{console}");
    libvirt.virsh(&["destroy", "guest"]);
}

/// libvirt's daemon of a plain user, which virsh starts, with everything of it in the lab.
struct Libvirt {
    home: PathBuf,
}

impl Libvirt {
    fn new(lab: &Lab) -> Self {
        Self { home: lab.folder_of(NOBODY, "home") }
    }

    /// Runs a program as that user.
    fn ok(&self, words: &[&str]) {
        let output = self.command(words).output().expect("setpriv");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, words: &[&str]) -> Command {
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
        let mut command = Command::new("setpriv");
        command.args(user).args(words).current_dir(&self.home);
        for name in ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env(name, &self.home);
        }
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command
    }

    fn virsh(&self, words: &[&str]) {
        self.ok(&[&["virsh", "-q", "-c", "qemu:///session"], words].concat());
    }

    fn define(&self, disk: &Path) {
        let (disk, console) = (disk.display(), self.home.join("console.log"));
        let xml = format!(
            "<domain type='qemu'><name>guest</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><cpu mode='maximum'/>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>\
             <target dev='vda' bus='virtio'/></disk>\
             <interface type='user'><model type='virtio'/></interface>\
             <serial type='file'><source path='{}'/></serial></devices></domain>",
            console.display()
        );
        let file = self.home.join("guest.xml");
        std::fs::write(&file, xml).expect("a file");
        self.virsh(&["define", &file.display().to_string()]);
    }

    /// Starts the guest, waits until it is up, and gives the line that says so.
    fn boot(&self) -> String {
        let console = self.home.join("console.log");
        let _ = std::fs::remove_file(&console);
        self.virsh(&["start", "guest"]);
        let mark = || {
            let console = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
            console
                .split_inclusive('\n')
                .find(|line| line.contains("BOOTMARK ") && line.ends_with('\n'))
                .map(str::to_owned)
        };
        let start = std::time::Instant::now();
        loop {
            if let Some(line) = mark() {
                return line;
            }
            assert!(start.elapsed().as_secs() < 400, "the guest did not come up");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.command(&["virsh", "-q", "-c", "qemu:///session", "destroy", "guest"]).output();
        }
        // By their own notes of who they are: other daemons may run here.
        for daemon in ["libvirtd", "virtlogd"] {
            let note = self.home.join("libvirt").join(format!("{daemon}.pid"));
            let pid = std::fs::read_to_string(note).ok().and_then(|pid| pid.trim().parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                wait_for(|| rustix::process::test_kill_process(pid).is_err());
            }
        }
    }
}
