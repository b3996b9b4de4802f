//! Arguments of `guest`: the files inside.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DiskArgs;

/// What to do with the guest's files.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GuestFilesArgs {
    /// The command.
    #[command(subcommand)]
    pub command: GuestCommand,
}

const EXAMPLES: &str = "\
Paths are the guest's own, from its root, with everything mounted where its fstab says. Nothing is mounted on this host.

Examples:
  hyper2kvm guest ls -l guest.ova /etc
  hyper2kvm guest cat guest.vmdk /etc/fstab
  hyper2kvm guest cp guest.ova /var/log ./its-logs
  hyper2kvm guest find guest.ova /boot --name 'vmlinuz*'
  hyper2kvm guest tar guest.ova /home | zstd > home.tar.zst
  hyper2kvm guest diff before.ova after.qcow2 /etc
  hyper2kvm guest ls system.vmdk --also data.vmdk /srv    a machine of two disks
  hyper2kvm guest hive windows.vmdk SOFTWARE 'Microsoft\\Windows NT\\CurrentVersion'
  hyper2kvm guest log guest.vmdk -b -p warning
  hyper2kvm guest ls --part 2 disk.raw /               one file system by itself";

/// One command on the guest's files.
#[derive(Clone, Debug, Subcommand)]
pub enum GuestCommand {
    /// Print files to standard output.
    Cat(CatArgs),
    /// Copy a file or directory out of the guest, to a name that is not there yet.
    Cp(CpArgs),
    /// Tell the file systems: what they are, where they are mounted, how full they are.
    Df(InsideArgs),
    /// Tell what differs between two guests, or two states of one.
    Diff(DiffArgs),
    /// Print the paths below a directory that fit.
    Find(FindArgs),
    /// Show the registry of a Windows: its hives, a key, or a value.
    Hive(HiveArgs),
    /// Show what the guest logged: its systemd journal, as journalctl does, or else its syslog files, the rotated ones too.
    Log(Box<LogArgs>),
    /// List a directory.
    Ls(LsArgs),
    /// Print SHA-256 digests of files, and of all files below directories, as sha256sum does.
    Sha256(ManyArgs),
    /// Tell everything about files: kind, size, owner, times, extended attributes.
    Stat(ManyArgs),
    /// Archive a file or directory as tar (pax), to standard output or a new file.
    Tar(TarArgs),
    /// Draw a directory as a tree.
    Tree(TreeArgs),
    /// List the units of systemd and whether they are enabled, as systemctl list-unit-files does.
    Units(UnitsArgs),
}

/// Which guest, and which of its file systems.
#[derive(Args, Clone, Debug)]
pub struct InsideArgs {
    /// An image, OVA or OVF; `SRC#2` names its second disk.
    pub src: String,

    /// One more disk of the same machine, as plan and mount take them one after another; in order, repeatable.
    #[arg(long, value_name = "SRC")]
    pub also: Vec<String>,

    /// Which of its disks.
    #[command(flatten)]
    pub disks: DiskArgs,

    /// Only the file system of this partition of the first disk, by itself.
    #[arg(long, value_name = "N", conflicts_with = "volume")]
    pub part: Option<u32>,

    /// Only the file system of this logical volume or array, by itself: VG/LV, or its /dev name.
    #[arg(long, value_name = "VG/LV")]
    pub volume: Option<String>,
}

impl InsideArgs {
    /// The disks of the machine, in order.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        [self.src.clone()].into_iter().chain(self.also.iter().cloned()).collect()
    }
}

/// `ls` options.
#[derive(Args, Clone, Debug)]
pub struct LsArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// A path in the guest.
    #[arg(default_value = "/")]
    pub path: String,

    /// Kind, mode, links, owner, size and time too.
    #[arg(short, long)]
    pub long: bool,

    /// Everything below it too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// `tree` options.
#[derive(Args, Clone, Debug)]
pub struct TreeArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// A path in the guest.
    #[arg(default_value = "/")]
    pub path: String,

    /// How many levels.
    #[arg(short, long, value_name = "N")]
    pub level: Option<usize>,
}

/// `find` options.
#[derive(Args, Clone, Debug)]
pub struct FindArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// A path in the guest.
    #[arg(default_value = "/")]
    pub path: String,

    /// Last names that fit this pattern: * ? [a-z] {one,other}.
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,

    /// Of this kind.
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub kind: Option<KindArg>,

    /// At least this many bytes.
    #[arg(long, value_name = "SIZE")]
    pub min_size: Option<crate::cli::size::Size>,

    /// At most this many levels below the path.
    #[arg(long, value_name = "N")]
    pub max_depth: Option<usize>,

    /// End each path with a zero byte, and print it as it is.
    #[arg(short = '0', long)]
    pub null: bool,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// A block device.
    #[value(alias = "b")]
    Block,
    /// A character device.
    #[value(alias = "c")]
    Char,
    /// A directory.
    #[value(alias = "d")]
    Dir,
    /// A named pipe.
    #[value(alias = "p")]
    Pipe,
    /// A regular file.
    #[value(alias = "f")]
    File,
    /// A symbolic link.
    #[value(alias = "l")]
    Link,
    /// A socket.
    #[value(alias = "s")]
    Socket,
}

/// `hive` options.
#[derive(Args, Clone, Debug)]
#[command(after_help = HIVE_EXAMPLES)]
pub struct HiveArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// SYSTEM, SOFTWARE, SAM, SECURITY, DEFAULT, BCD, NTUSER:USER …, or the path of any hive in the guest; without it, those that
    /// the guest has are listed.
    pub hive: Option<String>,

    /// A key, from the hive's root: names apart by backslashes. The root without it.
    #[arg(value_name = "KEY")]
    pub path: Option<String>,

    /// Only the value of this name, by itself; the default value for an empty name.
    #[arg(long, value_name = "NAME", conflicts_with = "export")]
    pub value: Option<String>,

    /// The key and all below it as the text of a .reg file.
    #[arg(long)]
    pub export: bool,
}

const HIVE_EXAMPLES: &str = "\
A hive that was not written out to its end is read with its logs. CurrentControlSet stands for the control set that Windows would
start with.

Examples:
  hyper2kvm guest hive windows.ova                                  which hives there are
  hyper2kvm guest hive windows.ova SYSTEM 'CurrentControlSet\\Services\\Tcpip\\Parameters'
  hyper2kvm guest hive windows.ova SOFTWARE 'Microsoft\\Windows NT\\CurrentVersion' --value ProductName
  hyper2kvm guest hive windows.ova NTUSER:alice --export > alice.reg";

/// `cat` options.
#[derive(Args, Clone, Debug)]
pub struct CatArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// Paths in the guest.
    #[arg(required = true)]
    pub path: Vec<String>,
}

/// Options of commands on several paths.
#[derive(Args, Clone, Debug)]
pub struct ManyArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// Paths in the guest.
    #[arg(required = true)]
    pub path: Vec<String>,
}

/// `cp` options.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Modes without set-id bits and times come along, owners and extended attributes do not; links are copied as they\nare. Use guest tar to keep everything."
)]
pub struct CpArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// A path in the guest.
    pub path: String,

    /// A new name on this host, or a directory to copy into.
    pub to: PathBuf,
}

/// `tar` options.
#[derive(Args, Clone, Debug)]
pub struct TarArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// A path in the guest.
    #[arg(default_value = "/")]
    pub path: String,

    /// A new file, instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write holes as zeros, for programs that do not know GNU tar's sparse files (busybox tar).
    #[arg(long)]
    pub no_sparse: bool,
}

/// `diff` options.
#[derive(Args, Clone, Debug)]
#[command(after_help = DIFF_EXAMPLES)]
pub struct DiffArgs {
    /// The first guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// The second guest: an image, OVA or OVF.
    pub other: String,

    /// One more disk of the second guest, in order; repeatable.
    #[arg(long, value_name = "SRC")]
    pub other_also: Vec<String>,

    /// A path in both guests.
    #[arg(default_value = "/")]
    pub path: String,

    /// Do not read files of the same size; they differ when their times do.
    #[arg(long)]
    pub no_content: bool,

    /// Tell files apart by their times too.
    #[arg(long)]
    pub times: bool,
}

const DIFF_EXAMPLES: &str = "\
--disk, --exclude-disk, --part and --volume are about both guests. Exit code 0 says that nothing differs, 6 that something does.

Examples:
  hyper2kvm guest diff before.ova after.qcow2 /etc
  hyper2kvm guest diff a1.vmdk --also a2.vmdk b1.qcow2 --other-also b2.qcow2    two machines of two disks";

impl DiffArgs {
    /// The second guest, looked at as the first one is.
    #[must_use]
    pub fn other(&self) -> InsideArgs {
        InsideArgs { src: self.other.clone(), also: self.other_also.clone(), ..self.inside.clone() }
    }
}

/// `log` options, those of `journalctl`.
#[derive(Args, Clone, Debug)]
#[command(after_help = LOG_EXAMPLES)]
pub struct LogArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// Only entries with these fields: values of one field are alternatives, + begins another group.
    #[arg(value_name = "FIELD=VALUE")]
    pub matches: Vec<String>,

    /// Only what concerns this unit; * ? and [a-z] fit several. Repeatable.
    #[arg(short, long, value_name = "UNIT")]
    pub unit: Vec<String>,

    /// Only this priority and what is more urgent, or a range: err, 0..4.
    #[arg(short, long, value_name = "RANGE")]
    pub priority: Option<String>,

    /// Only one start of the machine: its identifier, 0 for the last, -1 for the one before, 1 for the first.
    #[arg(
        short,
        long,
        value_name = "ID",
        num_args = 0..=1,
        default_missing_value = "0",
        allow_negative_numbers = true
    )]
    pub boot: Option<String>,

    /// Only messages of the kernel, of the last start unless -b names another.
    #[arg(short = 'k', long)]
    pub dmesg: bool,

    /// Only what this program logged. Repeatable.
    #[arg(short = 't', long, value_name = "NAME")]
    pub identifier: Vec<String>,

    /// Only these syslog facilities, by number or name. Repeatable.
    #[arg(long, value_name = "FACILITY", value_delimiter = ',')]
    pub facility: Vec<String>,

    /// Only messages that hold this regular expression; one without capitals fits them too.
    #[arg(short, long, value_name = "PATTERN")]
    pub grep: Option<String>,

    /// Not before: 2026-01-31 12:00, today, -1h, "2 days ago", @1700000000.
    #[arg(short = 'S', long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,

    /// Not after.
    #[arg(short = 'U', long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,

    /// Only the last so many entries; 10 when no number is given.
    #[arg(short = 'n', long, value_name = "N", num_args = 0..=1, default_missing_value = "10")]
    pub lines: Option<String>,

    /// The newest first.
    #[arg(short, long)]
    pub reverse: bool,

    /// How entries are written.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "short")]
    pub output: LogFormat,

    /// Only these fields, in the formats that show fields.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub output_fields: Vec<String>,

    /// Times in UTC instead of this host's time zone.
    #[arg(long)]
    pub utc: bool,

    /// Long and unprintable text too.
    #[arg(short, long)]
    pub all: bool,

    /// Without the host's name.
    #[arg(long)]
    pub no_hostname: bool,

    /// List the starts of the machine.
    #[arg(long, group = "what")]
    pub list_boots: bool,

    /// List all values of a field.
    #[arg(short = 'F', long, value_name = "FIELD", group = "what")]
    pub field: Option<String>,

    /// List the names of all fields.
    #[arg(short = 'N', long, group = "what")]
    pub fields: bool,

    /// Tell how much room the journal takes.
    #[arg(long, group = "what")]
    pub disk_usage: bool,

    /// Check the journal's files, as journalctl --verify does: structure, hashes, order. Exit code 4 says that one is damaged.
    #[arg(long, group = "what")]
    pub check: bool,
}

const LOG_EXAMPLES: &str = "\
The options are those of journalctl. With --json, entries are written as -o json does.

Examples:
  hyper2kvm guest log guest.vmdk -n 20                  the last 20 entries
  hyper2kvm guest log guest.vmdk -b -1 -p err           errors of the start before the last
  hyper2kvm guest log guest.ova -u ssh --since yesterday
  hyper2kvm guest log guest.ova _UID=1000 -o json
  hyper2kvm guest log guest.ova --list-boots
  hyper2kvm guest log guest.ova -o export | /lib/systemd/systemd-journal-remote -o copy.journal -";

/// Formats of `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// As in syslog files.
    Short,
    /// The same with microseconds.
    ShortPrecise,
    /// The same with times as in ISO 8601.
    ShortIso,
    /// The same with microseconds.
    ShortIsoPrecise,
    /// The same with weekday, year and time zone.
    ShortFull,
    /// The same with seconds since the machine was started.
    ShortMonotonic,
    /// The same with seconds since 1970.
    ShortUnix,
    /// Like short-full, with units instead of programs.
    WithUnit,
    /// Every field.
    Verbose,
    /// Lossless, for systemd-journal-remote.
    Export,
    /// JSON, one object a line.
    Json,
    /// JSON, easier to read.
    JsonPretty,
    /// JSON for server-sent events.
    JsonSse,
    /// JSON text sequences.
    JsonSeq,
    /// Messages alone.
    Cat,
}

/// `units` options.
#[derive(Args, Clone, Debug)]
#[command(after_help = UNITS_EXAMPLES)]
pub struct UnitsArgs {
    /// The guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// Only units whose name fits: * ? [a-z].
    pub pattern: Vec<String>,

    /// Only units in these states: enabled, disabled, masked, static, indirect, alias, linked, bad.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<String>,

    /// The units of the users' own managers instead of the system's.
    #[arg(long)]
    pub user: bool,

    /// Print the units' files, with what drop-ins add.
    #[arg(long, group = "what")]
    pub cat: bool,

    /// Tell what the units ask of others, and why: of the default target, unless units are named.
    #[arg(long, group = "what")]
    pub dependencies: bool,

    /// With --dependencies: what others ask of the units.
    #[arg(long, requires = "dependencies")]
    pub reverse: bool,

    /// List timers: what they start, and when they elapse next on the guest's clock.
    #[arg(long, group = "what")]
    pub timers: bool,

    /// List sockets: what they listen on, and what they start.
    #[arg(long, group = "what")]
    pub sockets: bool,

    /// List mounts and automounts that have units.
    #[arg(long, group = "what")]
    pub mounts: bool,

    /// Look for what systemd would not take in the units' files. Exit code 4 says that there is something.
    #[arg(long, group = "what")]
    pub check: bool,

    /// Tell when a calendar expression elapses, on the guest's clock, as systemd-analyze calendar does. Repeatable.
    #[arg(long, value_name = "EXPRESSION", group = "what")]
    pub calendar: Vec<String>,

    /// Tell how long a span of time is, as systemd-analyze timespan does. Repeatable.
    #[arg(long, value_name = "SPAN", group = "what")]
    pub timespan: Vec<String>,

    /// How many times each calendar expression elapses.
    #[arg(long, value_name = "N", default_value = "1")]
    pub iterations: u32,

    /// From when on calendar expressions and timers elapse; now, without it.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub base_time: Option<String>,
}

const UNITS_EXAMPLES: &str = "\
Units come from the guest's files and links alone. What generators would make at start, of fstab for example, is not listed.

Examples:
  hyper2kvm guest units guest.vmdk --state enabled
  hyper2kvm guest units guest.ova 'ssh*' '*.timer'
  hyper2kvm guest units guest.ova --cat ssh
  hyper2kvm guest units guest.ova --dependencies --reverse network-online.target
  hyper2kvm guest units guest.ova --timers
  hyper2kvm guest units guest.ova --check 'my-*'
  hyper2kvm guest units guest.ova --calendar 'Mon..Fri 03:00' --iterations 5
  hyper2kvm guest units guest.ova --json";
