//! cloud-init: a seed of its datasource NoCloud, or none of it at all.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use sha2::{Digest, Sha256};

use super::{CloudInit, FIX, WHY, absent, bad_value};
use crate::error::Result;
use crate::fix::draft::{Draft, Put};

const SEED: &str = "/var/lib/cloud/seed/nocloud";

/// Only the seed is looked at: the guest's own list may name datasources that wait for a network.
const SOURCES: &str = "# The seed in /var/lib/cloud/seed/nocloud counts.\ndatasource_list: [NoCloud, None]\n";

pub(super) fn plan(draft: &mut Draft<'_>, wanted: &CloudInit) -> Result<()> {
    if !draft.tree().is_file("/etc/cloud/cloud.cfg")? {
        return Err(absent("the guest has no cloud-init", "no /etc/cloud/cloud.cfg"));
    }
    let off = "/etc/cloud/cloud-init.disabled";
    let CloudInit::Seed { user_data, meta_data, network_config } = wanted else {
        return draft.put(FIX, off, &Put::new(0o644), Vec::new(), "switch cloud-init off", WHY);
    };
    if draft.tree().exists(off)? {
        return Err(absent("cloud-init is switched off in the guest", off));
    }
    let kinds: [&[u8]; 4] = [b"#cloud-config", b"#!", b"#include", b"#cloud-boothook"];
    let is_known = kinds.iter().any(|kind| user_data.starts_with(kind))
        || [b"Content-Type:".as_slice(), b"MIME-Version:", b"## template:"]
            .iter()
            .any(|kind| user_data.starts_with(kind));
    if !is_known {
        return Err(bad_value(
            "user-data of cloud-init: it begins with #cloud-config, #! or a MIME header",
            "other data",
        ));
    }
    let meta_data = meta_data.clone().unwrap_or_else(|| {
        let mut hash = Sha256::new();
        hash.update(user_data);
        hash.update(network_config.as_deref().unwrap_or_default());
        let digest = hash.finalize();
        let id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("instance-id: hyper2kvm-{id}\n").into_bytes()
    });
    let private = Put { is_private: true, ..Put::new(0o600) };
    let what = "give cloud-init a seed";
    let files =
        [("user-data", Some(user_data)), ("meta-data", Some(&meta_data)), ("network-config", network_config.as_ref())];
    for (name, content) in files {
        if let Some(content) = content {
            draft.put(FIX, &format!("{SEED}/{name}"), &private, content.clone(), what, WHY)?;
        }
    }
    let sources = "/etc/cloud/cloud.cfg.d/99-hyper2kvm.cfg";
    draft.put(FIX, sources, &Put::new(0o644), SOURCES.as_bytes().to_vec(), "let cloud-init look at its seed only", WHY)
}
