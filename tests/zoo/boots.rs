//! Guests of every layout, booted: not on virtio as they are, as VMware has them, and on virtio after `migrate`; only what the
//! report lists differs between the two.

use super::disks;
use super::guest::Guest;
use crate::support::{Bus, Lab};

on_each!(migrated: xfs btrfs lvm uefi dracut luks md sdboot uki recent extlinux ubuntu);

fn migrated(layout: &str) {
    let (lab, guest, source) = (Lab::new(), Guest::of(layout), disks(layout));
    guest.is_dead_on_virtio(&source);
    let before = guest.boots_on_vmware(&source);
    let result = guest.migrated(&lab, &source);
    guest.is_up_on_virtio(&result, &before["failed"], &[Bus::VirtioBlk, Bus::VirtioScsi]);
}
