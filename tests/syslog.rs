//! `guest log` of a guest without a journal, whose files were compressed by the programs that logrotate uses.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Lab, Run, tools};

/// Days of lines, one file a day, the oldest first.
const SCRIPT: &str = r#"
cd "$1"; mkdir -p etc bin sbin var/log usr/share/zoneinfo/Europe; echo ID=debian >etc/os-release
cp /usr/share/zoneinfo/Europe/Berlin usr/share/zoneinfo/Europe; ln -s ../usr/share/zoneinfo/Europe/Berlin etc/localtime
cd var/log
day() { # FILE MONTH DAY
    for hour in 00 06 12 18; do
        echo "$2 $3 $hour:00:00 web cron[$hour]: line of $2 $3, $hour"
        echo "$2 $3 $hour:30:00 web kernel: [    1.0] of $2 $3, $hour"
    done >"$1"
}
day syslog.6 Dec 30; day syslog.5 Dec 31; day syslog.4 Jan ' 1'; day syslog.3 Jan ' 2'; day syslog.2 Jan ' 3'; day syslog.1 Jan ' 4'
day syslog Jan ' 5'
printf '2026-01-05T23:00:00.5+01:00 web late[7]: esc \033[31m\n  continued\n' >>syslog
touch -d '2026-01-01' syslog.6 syslog.5; touch -d '2026-01-05' syslog.4 syslog.3 syslog.2 syslog.1; touch -d '2026-01-06' syslog
# Of two members, as zcat takes them.
gzip -c syslog.6 >syslog.6.gz; gzip -c syslog.5 >>syslog.6.gz; rm syslog.6 syslog.5
xz syslog.4; zstd -q --rm syslog.3; bzip2 syslog.2
touch -d '2026-01-01' syslog.6.gz
echo 'Jan  1 00:00:00 web other: no part of it' >messages
"#;

fn guest() -> (Lab, PathBuf) {
    let lab = Lab::new();
    let folder = lab.folder("guest");
    tools::ok("bash", ["-euc".as_ref(), SCRIPT.as_ref(), "bash".as_ref(), folder.as_os_str()]);
    let image = lab.path("guest.raw");
    tools::ok("mkfs.ext4", ["-q".as_ref(), "-d".as_ref(), folder.as_os_str(), image.as_os_str(), "16M".as_ref()]);
    (lab, image)
}

#[test]
fn rotated_files_are_one_log() {
    let (lab, image) = guest();
    let run = |args: &[&str]| {
        let run = Run::new(["guest".as_ref(), "log".as_ref(), image.as_os_str()]);
        args.iter().fold(run, |run, arg| run.arg(arg))
    };
    let lines = |args: &[&str]| -> Vec<String> { run(args).success().stdout.lines().map(str::to_owned).collect() };
    let all = lines(&[]);
    // What the decompressors say, in the order of the days.
    let script = "cd \"$1/var/log\"; zcat syslog.6.gz; xzcat syslog.4.xz; zstdcat -q syslog.3.zst; bzcat syslog.2.bz2; cat syslog.1 syslog";
    let theirs =
        Command::new("bash").args(["-euc", script, "bash"]).arg(lab.path("guest")).output().expect("bash").stdout;
    let theirs = String::from_utf8_lossy(&theirs).replace('\u{1b}', "\\u{1b}");
    assert_eq!(all, theirs.lines().collect::<Vec<_>>());
    assert_eq!(all.len(), 7 * 8 + 2);
    assert_eq!(lines(&["-n", "3"]), all[all.len() - 3..]);
    assert_eq!(lines(&["-n", "20"]), all[all.len() - 20..]);
    let mut turned = all.clone();
    turned.reverse();
    assert_eq!(lines(&["-r"]), turned);
    assert_eq!(lines(&["-r", "-n", "30"]), turned[..30]);
    // The clock is the guest's, an hour ahead of UTC; the years are those in which the files were written.
    let some = lines(&["--since", "2025-12-31 17:00:00 UTC", "--until", "2026-01-01 05:29:59 UTC"]);
    assert_eq!(some, all[8 + 6..8 + 8 + 3]);
    assert_eq!(lines(&["--since", "2026-01-05 22:00:00 UTC"]).len(), 2);
    assert_eq!(lines(&["-t", "kernel", "-n", "all"]).len(), 7 * 4);
    assert_eq!(lines(&["-t", "cron", "-n", "1", "-o", "cat"]), ["line of Jan  5, 18"]);
    assert_eq!(lines(&["--grep", "dec 31, 1[28]"]).len(), 4);
    let json = run(&["-t", "late", "--json"]).success().stdout;
    let json: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(json.len(), 1);
    assert_eq!(json[0]["__REALTIME_TIMESTAMP"], "1767650400500000");
    assert_eq!((&json[0]["SYSLOG_PID"], &json[0]["_HOSTNAME"]), (&"7".into(), &"web".into()));
    assert_eq!(json[0]["MESSAGE"], "esc \u{1b}[31m");
    run(&["-u", "ssh"]).fails_with(2).stderr_contains("log.option");
    run(&["-o", "verbose"]).fails_with(2).stderr_contains("log.option");
}
