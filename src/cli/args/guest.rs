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
}

/// Which guest, and which of its file systems.
#[derive(Args, Clone, Debug)]
pub struct InsideArgs {
    /// An image, OVA or OVF; `SRC#2` names its second disk.
    pub src: String,

    /// One more disk of the same machine, in order; repeatable.
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
}

/// `diff` options.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit code 0 says that nothing differs, 6 that something does.")]
pub struct DiffArgs {
    /// The first guest.
    #[command(flatten)]
    pub inside: InsideArgs,

    /// The second guest, of one image, OVA or OVF.
    pub other: String,

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
