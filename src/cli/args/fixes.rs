//! How the guest is changed: options that `migrate` and `plan` share.

use clap::{Args, ValueEnum};

use crate::fix::{MacMap, NetworkLevel, Options};

/// What is wanted of the fixes.
#[derive(Args, Clone, Debug)]
pub struct FixArgs {
    /// How far the network's configuration is changed.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = NetworkFixes::Moderate)]
    pub network_fixes: NetworkFixes,

    /// Give a card of the source another address, in the domain XML and in what the guest ties to it; without =NEW, tell the
    /// address of a card that the source does not describe; repeatable.
    #[arg(long, value_name = "SOURCE[=NEW]", value_parser = mac)]
    pub mac: Vec<String>,
}

/// How far the network's configuration is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkFixes {
    /// Add files that keep the names of cards, and edit none but for --mac.
    Conservative,
    /// Edit also what would match no card on KVM: drivers, places on the PCI bus.
    Moderate,
    /// Remove also what is tied to an address that no card of the machine has.
    Aggressive,
}

fn mac(text: &str) -> Result<String, String> {
    MacMap::default().add(text).map(|()| text.to_owned())
}

impl FixArgs {
    /// What is wanted.
    ///
    /// # Errors
    /// `usage.mac` when two cards have one address.
    pub fn options(&self) -> crate::error::Result<Options> {
        let mut options = Options {
            network: match self.network_fixes {
                NetworkFixes::Conservative => NetworkLevel::Conservative,
                NetworkFixes::Moderate => NetworkLevel::Moderate,
                NetworkFixes::Aggressive => NetworkLevel::Aggressive,
            },
            ..Options::default()
        };
        for text in &self.mac {
            options.macs.add(text).map_err(|why| {
                crate::error::Error::new(crate::error::Kind::Usage, "usage.mac", "--mac cannot be followed").found(why)
            })?;
        }
        Ok(options)
    }
}

/// Plan options.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// The machine.
    #[command(flatten)]
    pub guest: super::GuestArgs,

    /// What is wanted of the fixes.
    #[command(flatten)]
    pub fixes: FixArgs,
}
