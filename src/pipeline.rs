//! The stages, assembled: FETCH → FLATTEN → INSPECT → PLAN → FIX → CONVERT → VALIDATE.
//!
//! The disk is lazy, so the first two cost nothing until bytes are asked for; the next three touch a few megabytes; CONVERT is
//! the one pass.

use serde_json::{Value, json};

use crate::chain::Opened;
use crate::container::digests::Verified;
use crate::container::ovf::{Firmware, Ovf};
use crate::disk::Traffic;
use crate::error::Result;
use crate::session::Session;
use crate::source::{Network, Spoken};

pub mod bench;
pub mod copies;
pub mod device;
pub mod export;
pub mod files;
pub mod guest;
pub mod inspection;
pub mod migrate;
pub mod naming;
pub mod needs;
pub mod report;
pub mod revert;
pub mod source;
pub mod view;

/// Ends the check of a package's manifest: what nobody read is read and hashed now. Gives every digest that was compared.
///
/// # Errors
/// `ova.digest` when a member is not what the manifest says.
pub fn finish_digests(opened: &Opened) -> Result<Vec<Verified>> {
    let mut verified = opened.verified.clone();
    if let Some(digests) = &opened.digests {
        verified.extend(digests.finish()?);
    }
    Ok(verified)
}

/// Digests that were compared, as JSON.
#[must_use]
pub fn digests_json(verified: &[Verified]) -> Value {
    verified.iter().map(|v| json!({ "name": v.name, "algorithm": v.algorithm, "digest": v.digest })).collect()
}

/// What went over the network for each source on another machine, as JSON.
#[must_use]
pub fn network_json(session: &Session) -> Value {
    let one = |source: Spoken| {
        let mut json = traffic_json(source.traffic);
        json["kind"] = source.kind.into();
        json["source"] = source.name.into();
        json
    };
    Network::of(session).sources().into_iter().map(one).collect()
}

/// Requests, bytes and times, as JSON.
#[must_use]
pub fn traffic_json(traffic: Traffic) -> Value {
    json!({
        "requests": traffic.requests,
        "bytes": traffic.bytes,
        "retries": traffic.retries,
        "nanoseconds": traffic.nanoseconds,
        "waited": traffic.waited,
    })
}

/// The machine that an OVF describes, as JSON (`docs/json.md`).
#[must_use]
pub fn describe_machine(ovf: &Ovf) -> Value {
    let nics: Vec<Value> = ovf
        .nics
        .iter()
        .map(|nic| json!({ "label": nic.label, "model": nic.model, "network": nic.network, "mac": nic.mac }))
        .collect();
    let disks: Vec<Value> = ovf
        .disks
        .iter()
        .map(|disk| json!({ "id": disk.id, "label": disk.label, "href": disk.href, "capacity": disk.capacity }))
        .collect();
    json!({
        "name": ovf.name,
        "os_type": ovf.os_type,
        "hardware": ovf.hardware,
        "cpus": ovf.cpus,
        "memory": ovf.memory,
        "firmware": if ovf.firmware == Firmware::Uefi { "uefi" } else { "bios" },
        "secure_boot": ovf.secure_boot,
        "disks": disks,
        "nics": nics,
    })
}
