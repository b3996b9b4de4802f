//! Guests whose machine is killed while they write: what they had synced is there after `migrate`, all else is what the kernel makes
//! of the same disks, and they boot.

use std::path::Path;

use super::guest::Guest;
use crate::support::boot::Live;
use crate::support::{Bus, Lab};

on_each!(booted_after_a_crash: xfs btrfs lvm dracut luks md recent ubuntu);

/// Writes without end, and says `DONE n` when everything up to step n is on the disk, or should be.
const BUSY: &str = r#"
use IO::Handle;
my $d = "/srv/busy";
mkdir $d;
sub text { my $n = shift; "$n\n" x ($n * 7919 % 20000) }
sub put { my ($p, $t, $s) = @_; open(my $f, ">", $p) or die; print $f $t; $f->flush; $s and $f->sync; close $f }
sub dir { open(my $f, "<", $d) or die; $f->sync or die; close $f }
open(my $log, ">>", "$d/log") or die;
my @held;
for (my $n = 1; ; $n++) {
    put("$d/new", text($n), 1);
    rename("$d/new", "$d/kept.$n") or die;
    dir();
    for (1 .. 3) { print $log "$n $_ of an append that nobody waits for\n" }
    $log->flush;
    $n % 3 or $log->sync;
    put("$d/loose.$n.$_", text($n + $_), 0) for 1 .. 8;
    rename("$d/loose.$n.1", "$d/moved.$n");
    mkdir "$d/folder.$n"; rename("$d/loose.$n.2", "$d/folder.$n/inner"); symlink("../kept.$n", "$d/folder.$n/link");
    link("$d/kept.$n", "$d/linked.$n");
    unlink glob("$d/loose." . ($n - 2) . ".*") if $n > 2;
    open($held[$n % 7], "+>", "$d/open.$n") or die; print {$held[$n % 7]} "x" x 30000; $held[$n % 7]->flush; unlink "$d/open.$n";
    print "DONE $n\n";
}
"#;

fn booted_after_a_crash(layout: &str) {
    let (lab, guest) = (Lab::new(), Guest::of(layout));
    let source = guest.copies(&lab);
    // Any number does: the moment of the kill is another one each time.
    let steps = 20 + u64::from(std::process::id() % 40);
    let (mut live, before) = guest.runs_on_vmware(&source);
    log_in(&mut live);
    type_in(&mut live, "/root/busy.pl", BUSY);
    live.types("perl /root/busy.pl");
    live.said(&format!("DONE {steps}\r\n"));
    let done = last_step(&live.kill());
    assert!(done >= steps);

    let result = guest.migrated(&lab, &source);
    guest.is_as_the_kernel_has_it(&lab, &source, &result, |root| has_all(root, done));
    guest.is_up_on_virtio(&result, &before["failed"], &[Bus::VirtioBlk]);
}

/// The one of `make test`. It was told to write nothing more just after its last changes.
#[test]
fn xfs_boots_after_its_log_is_replayed() {
    let (lab, guest) = (Lab::new(), Guest::of("crashed"));
    let source = guest.copies(&lab);
    guest.is_dead_on_virtio(&source);
    let result = guest.migrated(&lab, &source);
    guest.is_as_the_kernel_has_it(&lab, &source, &result, |root| {
        assert_eq!(std::fs::read_dir(root.join("srv/fresh")).expect("a folder").count(), 50);
    });
    guest.is_up_on_virtio(&result, "", &[Bus::VirtioBlk]);
}

/// By the getty that systemd starts on the kernel's console.
fn log_in(live: &mut Live) {
    live.said("login: ");
    live.types("root");
    live.said("Password: ");
    live.types("root");
    live.said("root@");
    // What is typed before the new shell asks may get lost. The quotation marks are in what is typed, and not in what it says.
    live.types("stty -echo; PS1=all'-'ears: exec sh");
    live.said("all-ears:");
}

/// Puts a file into the guest by its console, whose lines are short.
fn type_in(live: &mut Live, path: &str, text: &str) {
    live.types(&format!("cat >{path} <<'END'"));
    text.lines().for_each(|line| live.types(line));
    live.types("END");
    live.types("echo WRIT''TEN");
    live.said("WRITTEN");
}

/// The last step that was said to be done, on a whole line.
fn last_step(console: &str) -> u64 {
    let lines = console.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let steps = lines.filter_map(|line| line.trim().strip_prefix("DONE ")?.parse().ok());
    steps.max().expect("a step")
}

/// Whatever was synced before a step was said to be done is in the tree, as it was written.
fn has_all(root: &Path, done: u64) {
    let busy = root.join("srv/busy");
    let read = |name: &str| {
        std::fs::read_to_string(busy.join(name)).unwrap_or_else(|error| panic!("{name} of {done} was lost: {error}"))
    };
    for step in 1..=done {
        let name = format!("kept.{step}");
        let lines = usize::try_from(step * 7919 % 20_000).expect("a small number");
        assert!(read(&name) == format!("{step}\n").repeat(lines), "{name} of {done}");
    }
    let lines = (1..=done - done % 3).flat_map(|step| (1..=3).map(move |line| (step, line)));
    let log: String = lines.map(|(step, line)| format!("{step} {line} of an append that nobody waits for\n")).collect();
    assert!(read("log").starts_with(&log), "the log of {done}");
}
