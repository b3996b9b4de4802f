//! What the configuration of the AWS programs says besides credentials: the region and the endpoint of the chosen profile.

use std::path::PathBuf;

use ini::Ini;

use super::context::read;
use crate::session::ObjectAccess;

/// The settings of one profile.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

impl Profile {
    /// That of the profile which the environment names, or of `default`. A file that is not there has none.
    pub(super) fn of(objects: &ObjectAccess) -> Self {
        let named = objects.variable("AWS_CONFIG_FILE").map(PathBuf::from);
        let usual = || objects.home.as_ref().map(|home| home.join(".aws/config"));
        let bytes = named.or_else(usual).and_then(|path| read(&path).ok()).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes), objects.variable("AWS_PROFILE").unwrap_or("default"))
    }

    fn parse(text: &str, profile: &str) -> Self {
        let Ok(file) = Ini::load_from_str(text) else { return Self::default() };
        let long = format!("profile {profile}");
        let section =
            file.section(Some(&long)).or_else(|| file.section(Some(profile)).filter(|_| profile == "default"));
        let value = |name| section.and_then(|section| section.get(name)).map(str::to_owned);
        Self { region: value("region"), endpoint: value("endpoint_url") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_profile_counts() {
        let text = "[default]\nregion = eu-north-1\n[profile lab]\nregion=us-west-2\nendpoint_url = https://s3.lab:9000\n[lab]\nregion=no\n";
        let profile = |name| Profile::parse(text, name);
        assert_eq!((profile("default").region.as_deref(), profile("default").endpoint), (Some("eu-north-1"), None));
        assert_eq!(profile("lab").region.as_deref(), Some("us-west-2"));
        assert_eq!(profile("lab").endpoint.as_deref(), Some("https://s3.lab:9000"));
        assert_eq!(profile("other"), Profile::default());
        assert_eq!(Profile::parse("[default\nregion", "default"), Profile::default());
    }
}
