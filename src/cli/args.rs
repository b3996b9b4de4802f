//! What was typed: every command and flag, from which help, man pages and completions are generated.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::size::{Rate, Size};
use crate::chain::{OpenOptions, Selection};
use crate::cli::keys::KeyArg;
use crate::convert::{TARGETS, Target};
use crate::error::Result;
use crate::session::{Engine, VhdSize};

mod fixes;
pub mod guest;
pub mod remote;

pub use fixes::{FixArgs, PlanArgs};

/// Any virtual disk as one flat block device: inspect, fix, convert and serve it for KVM, in one pass.
#[derive(Debug, Parser)]
#[command(
    name = "hyper2kvm",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = EXAMPLES
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Flags that mean the same everywhere.
    #[command(flatten)]
    pub global: Global,
}

const EXAMPLES: &str = "\
Examples:
  hyper2kvm info guest.ova                         what it is
  hyper2kvm check guest.qcow2                      whether its metadata is sound
  hyper2kvm plan guest.ova                         what migrate would change
  hyper2kvm migrate guest.ova -o out/              fix and convert it, in one pass
  hyper2kvm test out/guest.qcow2                   boot the result and wait for a sign of life
  hyper2kvm serve guest.vmdk --unix /tmp/g.sock    the flattened disk over NBD
  hyper2kvm convert guest.vmdk guest.qcow2         copy it as it is
  hyper2kvm convert guest.ova - --to raw | md5sum  the same, into a pipe

Exit codes:
  0 done and verified   1 failed               2 usage               3 source unreadable
  4 unsupported or corrupt   5 refused by policy   6 verification mismatch   7 interrupted";

/// The commands. Source first, destination second.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach the flattened disks and their partitions as loop devices. Needs root.
    Attach(AttachArgs),
    /// Measure how fast a source answers: latency, and throughput with several requests at once.
    Bench(BenchArgs),
    /// Verify the metadata of every layer of a source; nothing is repaired or written.
    Check(SourceArgs),
    /// Copy a disk as it is to qcow2 or raw, verified.
    Convert(ConvertArgs),
    /// Detach what attach attached, or list it.
    Detach(DetachArgs),
    /// Print the tree of layers that reads of a source go through, with bytes and latency of each.
    Explain(ExplainArgs),
    /// List, read, copy, archive and compare the files inside a guest.
    Guest(guest::GuestFilesArgs),
    /// Explain an error code, or print the help of a command.
    Help(HelpArgs),
    /// Tell what a source is: format, chain, size, facts, safety verdict.
    Info(SourceArgs),
    /// Tell facts about the guests inside.
    Inspect(InspectArgs),
    /// Print the extents of the flattened disk.
    Map(SourceArgs),
    /// Inspect, plan, fix, convert and validate, in one pass; writes qcow2, domain XML and a report.
    Migrate(MigrateArgs),
    /// Mount the flattened disks and their partitions as files, by FUSE; writes go to an overlay.
    Mount(MountArgs),
    /// Print what migrate would change, and what it would leave.
    Plan(PlanArgs),
    /// Undo what migrate changed in a guest: writes its disks anew, with every file as it was.
    Revert(RevertArgs),
    /// Serve the flattened disks over NBD, with their partitions; writes go to an overlay.
    Serve(ServeArgs),
    /// Boot an image in QEMU and wait for a sign of life. The image is never written.
    Test(TestArgs),
    /// Print shell completions.
    #[command(hide = true)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory.
    #[command(hide = true)]
    Man {
        /// Where to write `hyper2kvm*.1`.
        dir: PathBuf,
    },
}

impl Command {
    /// Whether standard output is where the command writes a disk.
    #[must_use]
    pub fn takes_stdout(&self) -> bool {
        matches!(self, Self::Convert(args) if args.is_stdout())
    }
}

impl ConvertArgs {
    /// Whether the destination is standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.paths.last().is_some_and(|path| path == "-")
    }
}

/// Flags that mean the same everywhere.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Global {
    /// Print one JSON object (docs/json.md) instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    /// Print errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Log more: -v info, -vv debug, -vvv trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// When to colour text.
    #[arg(long, global = true, value_enum, default_value_t = Choice::Auto, value_name = "WHEN")]
    pub color: Choice,

    /// Memory budget; the process stays within it + 64 MiB.
    #[arg(long, global = true, value_name = "SIZE", default_value = "256M")]
    pub memory: Size,

    /// Worker threads [default: one a core].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,

    /// The source's format; never guess.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub format: Option<String>,

    /// Read the disk as it was at this internal snapshot of a qcow2 image, by its id or name.
    #[arg(long, global = true, value_name = "NAME")]
    pub snapshot: Option<String>,

    /// A key of encrypted volumes (LUKS): all, or a UUID, /dev/sda2 or disk1/p2, with file:PATH, fd:N or prompt; repeatable.
    #[arg(long, global = true, value_name = "SELECTOR:file:PATH", value_parser = crate::cli::keys::parse)]
    pub key: Vec<KeyArg>,

    /// A directory beneath which references of an image may lead; repeatable.
    #[arg(long, global = true, value_name = "DIR")]
    pub allow_dir: Vec<PathBuf>,

    /// Replace a prefix of the references of an image; repeatable.
    #[arg(long, global = true, value_name = "OLD=NEW", value_parser = parse_map_path)]
    pub map_path: Vec<(String, PathBuf)>,

    /// Use a parent image though it is not the one that its child remembers.
    #[arg(long, global = true)]
    pub ignore_parent_id: bool,

    /// Read a VMware disk though its machine runs, or died: what is written meanwhile is read partly.
    #[arg(long, global = true)]
    pub allow_running: bool,

    /// What reads and changes the files of guests: this program's drivers, or libguestfs in an appliance of its own, for file
    /// systems that those refuse (docs/guests.md).
    #[arg(long, global = true, value_enum, default_value_t = EngineName::Own, value_name = "ENGINE")]
    pub engine: EngineName,

    /// What gives a VHD its size, where its two fields differ.
    #[arg(long, global = true, value_enum, default_value_t = VhdSizeBy::Creator, value_name = "RULE")]
    pub vhd_size: VhdSizeBy,

    /// Read the output back and compare.
    #[arg(long, global = true, value_enum, default_value_t = Switch::On, value_name = "SWITCH")]
    pub verify: Switch,

    /// Say what would be done, and do nothing.
    #[arg(long, global = true)]
    pub dry_run: bool,

    /// Read at most this many bytes a second.
    #[arg(long, global = true, value_name = "RATE")]
    pub rate_limit: Option<Rate>,

    /// How to show progress.
    #[arg(long, global = true, value_enum, default_value_t = ProgressStyle::Auto, value_name = "STYLE")]
    pub progress: ProgressStyle,

    /// Sources on other machines.
    #[command(flatten)]
    pub remote: remote::RemoteArgs,
}

impl Global {
    /// How sources are opened.
    #[must_use]
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions { format: self.format.clone(), snapshot: self.snapshot.clone(), disks: Selection::default() }
    }
}

/// On, off or by the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// When standard output is a terminal.
    Auto,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Do it.
    On,
    /// Do not.
    Off,
}

/// What gives a VHD its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VhdSizeBy {
    /// The rule of the program that made it.
    Creator,
    /// The field "Current Size".
    Current,
    /// Cylinders × heads × sectors.
    Geometry,
}

/// What reads and changes the files of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// libguestfs, which must be installed.
    Appliance,
    /// This program's own drivers.
    Own,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Appliance => Self::Appliance,
            EngineName::Own => Self::Own,
        }
    }
}

impl From<VhdSizeBy> for VhdSize {
    fn from(by: VhdSizeBy) -> Self {
        match by {
            VhdSizeBy::Creator => Self::ByCreator,
            VhdSizeBy::Current => Self::Current,
            VhdSizeBy::Geometry => Self::Geometry,
        }
    }
}

/// How to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal, plain lines without one.
    Auto,
    /// A bar.
    Bar,
    /// A line now and then.
    Plain,
    /// JSON lines on standard error.
    Json,
    /// Nothing.
    None,
}

/// One source.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// An image, OVA or OVF, by its path or http(s) address; `SRC#2` names its second disk.
    pub src: String,

    /// Which disk of several: a number from 1, or a name.
    #[arg(long, value_name = "N|NAME")]
    pub disk: Option<String>,
}

/// Bench options.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// A file or an address, which is read as it lies there, past every cache.
    pub src: String,

    /// Requests at once, one measurement each.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub depth: Vec<u16>,

    /// Bytes of a request.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = request)]
    pub request: Size,

    /// How long each measurement makes new requests.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,
}

/// A size that one request may have.
fn request(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    let most = crate::limits::MAX_REMOTE_REQUEST as u64;
    if (1..=most).contains(&size.0) { Ok(size) } else { Err(format!("a request has 1 to {most} bytes")) }
}

/// Explain options.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The source.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Read the whole flattened disk first, so that the figures mean something.
    #[arg(long)]
    pub read: bool,
}

/// The disks of one machine.
#[derive(Args, Clone, Debug)]
pub struct GuestArgs {
    /// The disks of one machine in order: one OVA or OVF, or several images.
    #[arg(required = true)]
    pub src: Vec<String>,

    /// Which of its disks.
    #[command(flatten)]
    pub disks: DiskArgs,
}

/// Inspect options.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The machine.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// Tell also what takes more reading: drivers in each kernel's initramfs, installed packages.
    #[arg(long)]
    pub deep: bool,

    /// Print the systems in the XML of virt-inspector, for programs that read that.
    #[arg(long, conflicts_with = "json")]
    pub xml: bool,
}

/// Some of a source's disks.
#[derive(Args, Clone, Debug)]
pub struct DiskArgs {
    /// Which disk of several: a number from 1, or a name; repeatable.
    #[arg(long, value_name = "N|NAME")]
    pub disk: Vec<String>,

    /// Leave this disk alone: a number from 1, or a name; repeatable.
    #[arg(long, value_name = "N|NAME")]
    pub exclude_disk: Vec<String>,
}

impl DeviceArgs {
    /// Whether writes are taken.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable || !self.overlay.is_empty()
    }
}

impl DiskArgs {
    /// How the sources are opened, and which of their disks.
    ///
    /// # Errors
    /// `source.disk` for a disk 0.
    pub fn open_options(&self, global: &Global) -> Result<OpenOptions> {
        let disks = Selection::parse(&self.disk, &self.exclude_disk)?;
        Ok(OpenOptions { disks, ..global.open_options() })
    }
}

/// Migrate options.
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    /// The machine.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// Where the results go; made if missing.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Name of the machine and its files [default: from the source].
    #[arg(long)]
    pub name: Option<String>,

    /// Replace existing results.
    #[arg(long)]
    pub force: bool,

    /// Discard what an unfinished run left, instead of going on with it.
    #[arg(long)]
    pub restart: bool,

    /// Copy the free space of the guest's file systems too.
    #[arg(long)]
    pub keep_free_space: bool,

    /// Bus of the disks in the domain XML.
    #[arg(long, value_enum, default_value_t = Bus::VirtioBlk)]
    pub bus: Bus,

    /// Network of the interfaces in the domain XML.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub network: String,

    /// What is wanted of the fixes.
    #[command(flatten)]
    pub fixes: FixArgs,
}

/// Revert options.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  hyper2kvm revert out/guest.report.json -o before/    before/guest.qcow2 with the guest as it came

What undoes the changes is in out/guest.undo, which migrate writes beside the report and which the
disks belong to. A guest that changed those files since is refused.")]
pub struct RevertArgs {
    /// The report that migrate wrote; the disks lie beside it.
    pub report: PathBuf,

    /// Where the disks go; made if missing.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Replace existing results.
    #[arg(long)]
    pub force: bool,

    /// Copy the free space of the guest's file systems too.
    #[arg(long)]
    pub keep_free_space: bool,
}

/// Convert options.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "hyper2kvm convert [OPTIONS] <SRC>... <DST>")]
pub struct ConvertArgs {
    /// The sources (or - for standard input), and last the destination: a file, a directory (DIR/), which gets a file for
    /// each disk, a block device or logical volume (with --force), an export of an NBD server (nbd://HOST/EXPORT), an object
    /// of S3 (s3://BUCKET/KEY), or - for standard output.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// Which of the sources' disks.
    #[command(flatten)]
    pub disks: DiskArgs,

    /// Format of the destination [default: by its suffix, else qcow2; raw for an NBD server].
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub to: Option<String>,

    /// Variant of the format: fixed (Azure's) or dynamic for vhd [default: fixed]; streamOptimized for vmdk.
    #[arg(long, value_name = "NAME")]
    pub subformat: Option<String>,

    /// Bytes of a qcow2 cluster: 4K to 2M.
    #[arg(long, value_name = "SIZE")]
    pub cluster_size: Option<Size>,

    /// Compress qcow2 clusters: zlib (which every reader knows) or zstd, with a level if need be. VMDK is always zlib.
    #[arg(long, value_name = "zlib|zstd[:LEVEL]")]
    pub compress: Option<String>,

    /// Let qcow2 keep track of each 32nd of a cluster.
    #[arg(long)]
    pub extended_l2: bool,

    /// What is done beforehand for what has no data yet.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Prealloc::Off)]
    pub preallocation: Prealloc,

    /// Write a qcow2 increment: only what differs from the disk in this image, which becomes the backing file.
    #[arg(long, value_name = "FILE[:FORMAT]")]
    pub backing: Option<String>,

    /// Let the disk grow to this size on the way.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,

    /// Replace an existing destination.
    #[arg(long)]
    pub force: bool,

    /// Discard what an unfinished run left, instead of going on with it.
    #[arg(long)]
    pub restart: bool,

    /// Leave out what the guest's file systems say is free, or in use and never read.
    #[arg(long)]
    pub skip_free_space: bool,
}

/// What is done beforehand for what has no data yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Prealloc {
    /// Nothing: the file grows.
    Off,
    /// qcow2: every cluster has its place in the file.
    Metadata,
    /// The file system keeps room for all of it.
    Falloc,
    /// Zeros are written.
    Full,
}

/// The disks of one machine as devices, and what writes go to.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// The machine.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// Take writes, which stay beside the source and end with the command.
    #[arg(long)]
    pub writable: bool,

    /// Take writes and keep them in a qcow2 file over the source, which is made or gone on with; one for each disk.
    #[arg(long, value_name = "FILE.qcow2")]
    pub overlay: Vec<PathBuf>,

    /// Make the guest ready for KVM first, as migrate does; the changes stay beside the source.
    #[arg(long)]
    pub fix: bool,

    /// Where changes go that do not fit into memory [default: $TMPDIR, else /var/tmp].
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
}

/// Serve options.
#[derive(Args, Clone, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// The disks.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Listen on a Unix socket, mode 0600.
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// Listen on an address; beyond loopback only with --tls-certificates.
    #[arg(long, value_name = "ADDR:PORT")]
    pub tcp: Option<std::net::SocketAddr>,

    /// Serve one client on standard input and output.
    #[arg(long, conflicts_with_all = ["unix", "tcp", "run"])]
    pub stdio: bool,

    /// Run a shell command with the server's address in $uri, $unixsocket and $port, and end with it.
    #[arg(long, value_name = "COMMAND")]
    pub run: Option<String>,

    /// Name of the default export, which is the first disk.
    #[arg(long, default_value = "")]
    pub export: String,

    /// Encrypt, with server-cert.pem, server-key.pem and ca-cert.pem of a folder; clients need a certificate of that authority.
    #[arg(long, value_name = "DIR")]
    pub tls_certificates: Option<PathBuf>,

    /// Let clients in without a certificate.
    #[arg(long, requires = "tls_certificates")]
    pub tls_any_client: bool,

    /// Serve beyond loopback although anyone there can read the disk.
    #[arg(long)]
    pub i_know_this_is_open: bool,
}

const SERVE_EXAMPLES: &str = "\
Exports: the first disk without a name; every disk as disk1, disk2 …; its partitions as disk1/p1 …;
logical volumes as VG/LV, arrays as md0 …, encrypted volumes that a --key opens as luks-UUID

Examples:
  hyper2kvm serve guest.ova --unix /tmp/g.sock                  until Ctrl-C; prints how to use it
  hyper2kvm serve guest.ova --writable --run 'qemu-system-x86_64 -m 2G -drive file=$uri,format=raw,if=virtio'
  hyper2kvm serve guest.ova --fix --unix /tmp/g.sock            ready to boot on virtio, before a byte is copied
  hyper2kvm serve guest.ova --overlay day1.qcow2 --unix /tmp/g.sock   what is written is kept, beside the source
  hyper2kvm serve guest.vmdk --tcp 0.0.0.0:10809 --tls-certificates /etc/pki/nbd
  hyper2kvm serve guest.vmdk --key all:prompt --unix /tmp/g.sock   volumes inside of LUKS too
  nbdcopy -- [ hyper2kvm serve guest.vmdk --stdio ] disk.raw    one client, without a socket

Started by systemd with a socket unit (Accept=no), it serves on that socket.";

/// Mount options.
#[derive(Args, Clone, Debug)]
#[command(after_help = MOUNT_EXAMPLES)]
pub struct MountArgs {
    /// The disks.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Show the guest's own files, read-only, with everything mounted where its fstab says.
    #[arg(long = "guest", conflicts_with_all = ["writable", "overlay", "fix"])]
    pub files: bool,

    /// With --guest, only the file system of this partition of the first disk, by itself.
    #[arg(long, value_name = "N", requires = "files", conflicts_with = "volume")]
    pub part: Option<u32>,

    /// With --guest, only the file system of this logical volume or array, by itself: VG/LV, or its /dev name.
    #[arg(long, value_name = "VG/LV", requires = "files")]
    pub volume: Option<String>,

    /// An empty directory, the last of the arguments.
    #[arg(required = true)]
    pub dir: PathBuf,
}

const MOUNT_EXAMPLES: &str = "\
In the directory: disk.raw with partitions as disk-p1.raw …, or disk1.raw, disk2.raw … where there are several;
logical volumes as vg0-root.raw, arrays as md0.raw, opened encrypted volumes as luks-UUID.raw; and info.json.

Examples:
  hyper2kvm mount guest.ova /mnt/guest                 until fusermount3 -u /mnt/guest, or Ctrl-C
  hyper2kvm mount --writable guest.vmdk /mnt/guest     the files take writes; the source does not
  hyper2kvm mount --guest guest.ova /mnt/guest         the guest's own files instead: /mnt/guest/etc/fstab …
  mount -o ro,loop /mnt/guest/disk-p1.raw /mnt/root    as root: a file system in it";

/// Attach options.
#[derive(Args, Clone, Debug)]
#[command(after_help = ATTACH_EXAMPLES)]
pub struct AttachArgs {
    /// The disks.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Stay, instead of going on in the background, until a signal comes.
    #[arg(long)]
    pub foreground: bool,
}

const ATTACH_EXAMPLES: &str = "\
Every disk, partition, logical volume and array becomes a loop device. Needs root.

Examples:
  hyper2kvm attach guest.ova              prints /dev/loop0  disk1 of guest.ova, /dev/loop1  disk1/p1 of guest.ova
  mount -o ro /dev/loop1 /mnt
  hyper2kvm detach --list                 what is attached, and what a crash left
  hyper2kvm detach /dev/loop0             all devices of that source";

/// Detach options.
#[derive(Args, Clone, Debug)]
pub struct DetachArgs {
    /// Any device of what was attached: all of it goes.
    #[arg(required_unless_present = "list")]
    pub device: Option<PathBuf>,

    /// List what is attached, and what a crash left.
    #[arg(long, conflicts_with = "device")]
    pub list: bool,
}

/// Test options.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// The machine's disks in order, of which the first is booted: qcow2, raw or VMDK images.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,

    /// Bus of the disk.
    #[arg(long, value_enum, default_value_t = Bus::VirtioBlk)]
    pub bus: Bus,

    /// Model of the network card.
    #[arg(long, value_enum, default_value_t = Nic::Virtio)]
    pub nic: Nic,

    /// Boot by UEFI instead of BIOS.
    #[arg(long)]
    pub uefi: bool,

    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,

    /// Memory of the guest.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub guest_memory: Size,

    /// Virtual CPUs of the guest.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u32,

    /// A regular expression on the console that counts as a sign of life; repeatable, each must appear.
    #[arg(long, value_name = "REGEX")]
    pub expect: Vec<String>,

    /// Where the console log is kept [default: IMAGE.console.log].
    #[arg(long, value_name = "PATH")]
    pub console: Option<PathBuf>,

    /// Use KVM instead of emulation.
    #[arg(long)]
    pub kvm: bool,
}

/// Buses that a disk can sit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bus {
    /// IDE (test only).
    Ide,
    /// VMware's paravirtual SCSI (test only).
    Pvscsi,
    /// AHCI.
    Sata,
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
}

/// Models of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Nic {
    /// Intel 82540EM.
    E1000,
    /// No card.
    None,
    /// virtio-net.
    Virtio,
    /// VMware's paravirtual card.
    Vmxnet3,
}

/// Help options.
#[derive(Args, Clone, Debug)]
pub struct HelpArgs {
    /// An error code such as `ova.digest`, or a command; nothing lists both.
    pub topic: Option<String>,
}

/// The formats that can be written, as the command line takes them.
fn formats() -> PossibleValuesParser {
    let value = |target: &Target| PossibleValue::new(target.name).help(target.about);
    PossibleValuesParser::new(TARGETS.iter().map(value))
}

fn parse_map_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), PathBuf::from(new))),
        _ => Err("expected OLD=NEW".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_has_a_flag_of_the_name_of_one_that_all_have() {
        fn check(command: &clap::Command, taken: &[String]) {
            let longs = |all: bool| {
                let args = command.get_arguments().filter(move |arg| arg.is_global_set() == all);
                args.filter_map(|arg| arg.get_long().map(str::to_owned))
            };
            let twice: Vec<String> = longs(false).filter(|name| taken.contains(name)).collect();
            assert!(twice.is_empty(), "{}: {twice:?}", command.get_name());
            let taken: Vec<String> = taken.iter().cloned().chain(longs(true)).collect();
            command.get_subcommands().for_each(|command| check(command, &taken));
        }
        check(&Cli::command(), &[]);
    }

    #[test]
    fn a_path_map_needs_both_sides() {
        assert!(parse_map_path("/vmfs/volumes/a=/srv/a").is_ok());
        assert!(parse_map_path("=x").is_err());
        assert!(parse_map_path("/vmfs").is_err());
    }
}
