//! Flags for sources on other machines.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::session::{Addressing, Thumbprint};

/// How to get at sources on other machines. Secrets are in files, in descriptors or in the environment, never on the command line.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Remote sources")]
pub struct RemoteArgs {
    /// The name to log in with; or put it into the address: https://NAME@HOST/, ssh://NAME@HOST/.
    #[arg(long, global = true, value_name = "NAME")]
    pub login: Option<String>,

    /// Read the password of that user from a file; HYPER2KVM_PASSWORD may have it, too.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_fd")]
    pub password_file: Option<PathBuf>,

    /// Read the password from an open descriptor.
    #[arg(long, global = true, value_name = "N")]
    pub password_fd: Option<u32>,

    /// Read a bearer token from a file; HYPER2KVM_TOKEN may have it, too.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token_fd")]
    pub token_file: Option<PathBuf>,

    /// Read a bearer token from an open descriptor.
    #[arg(long, global = true, value_name = "N")]
    pub token_fd: Option<u32>,

    /// Read cookies (NAME=VALUE; NAME=VALUE) from a file; HYPER2KVM_COOKIE may have them, too.
    #[arg(long, global = true, value_name = "FILE")]
    pub cookie_file: Option<PathBuf>,

    /// Look for the user and password of the source's host in a netrc file.
    #[arg(long, global = true, value_name = "FILE")]
    pub netrc_file: Option<PathBuf>,

    /// Trust the certificates in this file, too, in PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub cacert: Option<PathBuf>,

    /// Trust the server's certificate with this SHA-256 or SHA-1 digest, and no other; repeatable.
    #[arg(long, global = true, value_name = "DIGEST", value_parser = thumbprint)]
    pub thumbprint: Vec<Thumbprint>,

    /// Show the server this certificate, with its chain, in PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,

    /// The key of that certificate, in PEM, unencrypted.
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,

    /// Log in on SSH servers with the private key in this file; repeatable. Without it: ~/.ssh/config, an agent, ~/.ssh/id_*.
    #[arg(long, global = true, value_name = "FILE")]
    pub ssh_identity: Vec<PathBuf>,

    /// Read the passphrase of encrypted private keys from a file; HYPER2KVM_PASSPHRASE may have it, too.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "passphrase_fd")]
    pub passphrase_file: Option<PathBuf>,

    /// Read that passphrase from an open descriptor.
    #[arg(long, global = true, value_name = "N")]
    pub passphrase_fd: Option<u32>,

    /// Trust the SSH server's key with this digest (SHA256:…, as ssh-keygen -l shows it), and no other; repeatable.
    #[arg(long, global = true, value_name = "DIGEST", value_parser = host_key)]
    pub ssh_host_key: Vec<String>,

    /// Look for keys of SSH servers in this file of known hosts, too; repeatable.
    #[arg(long, global = true, value_name = "FILE")]
    pub ssh_known_hosts: Vec<PathBuf>,

    /// Go to the SSH server through others: [USER@]HOST[:PORT], with commas in between.
    #[arg(long, global = true, value_name = "HOSTS")]
    pub ssh_jump: Option<String>,

    /// Take this configuration of OpenSSH, and not ~/.ssh/config and /etc/ssh/ssh_config; /dev/null is none.
    #[arg(long, global = true, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,

    /// Have a program make the connections to SSH servers, like the system's ssh.
    #[arg(long, global = true, value_name = "PROGRAM", conflicts_with_all = ["ssh_host_key", "ssh_known_hosts"])]
    pub ssh_program: Option<PathBuf>,

    /// Where the object store of s3://, gs:// or azblob:// is, if not at the cloud's own place: http(s)://HOST[:PORT][/PATH].
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint_url: Option<String>,

    /// How buckets are named to the server of s3://: auto is in the host's name on AWS, and in the path with --endpoint-url.
    #[arg(long, global = true, value_name = "WAY", value_enum, default_value_t = AddressingArg::Auto)]
    pub s3_addressing: AddressingArg,

    /// Ask object stores as nobody, and look for no credentials.
    #[arg(long, global = true, conflicts_with = "instance_credentials")]
    pub anonymous: bool,

    /// Let this machine's own role log in at object stores: its cloud is asked for credentials where the environment and the
    /// usual files have none.
    #[arg(long, global = true)]
    pub instance_credentials: bool,

    /// Give up a request after so many seconds of silence.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub net_timeout: u32,

    /// Ask again this many times in a row, with pauses that grow.
    #[arg(long, global = true, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub net_retries: u32,

    /// Keep what was fetched in this folder, which is made if need be, and take it from there the next time while the source is the
    /// same. It holds the source's data; delete it when it is no longer wanted.
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// How buckets of S3 are named, as it is typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AddressingArg {
    /// As the store is used to.
    #[default]
    Auto,
    /// HOST/BUCKET/KEY.
    Path,
    /// BUCKET.HOST/KEY.
    Virtual,
}

impl From<AddressingArg> for Addressing {
    fn from(arg: AddressingArg) -> Self {
        match arg {
            AddressingArg::Auto => Self::Auto,
            AddressingArg::Path => Self::Path,
            AddressingArg::Virtual => Self::Virtual,
        }
    }
}

fn host_key(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("SHA256:").map(|digits| digits.trim_end_matches('='));
    let fits = digits.is_some_and(|digits| {
        digits.len() == 43 && digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    });
    fits.then(|| text.to_owned())
        .ok_or_else(|| "expected SHA256: and 43 characters, as ssh-keygen -l shows them".into())
}

fn thumbprint(text: &str) -> Result<Thumbprint, String> {
    Thumbprint::parse(text)
        .ok_or_else(|| "expected the 64 or 40 hexadecimal digits of a SHA-256 or SHA-1 digest".into())
}
