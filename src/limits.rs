//! Every bound in one place: its name, its value, the reason for it. Each has a test at, below and above it.

/// Largest virtual size of any disk: 64 PiB keeps every sum of offsets far from overflow and is above every format's own limit.
pub const MAX_DISK_LEN: u64 = 64 << 50;

/// Layers in one backing chain, the image itself included. crosvm stops at 10, libvirt at 200; VMware allows 32 snapshots
/// but advises 2 to 3.
pub const MAX_CHAIN_DEPTH: u32 = 16;

/// Largest decoded unit (grain, compressed cluster). qcow2's largest cluster is 2 MiB; bounds each decoder's output.
pub const MAX_UNIT: usize = 2 << 20;

/// Default memory budget in bytes. The process stays within the budget + 64 MiB.
pub const DEFAULT_BUDGET: u64 = 256 << 20;

/// Smallest memory budget that still lets every stage make progress.
pub const MIN_BUDGET: u64 = 64 << 20;

/// Bytes that the overlay counts for one entry in its maps: key, slot and the map's own overhead, rounded up.
pub const OVERLAY_ENTRY: u64 = 64;

/// Longest name of another file in an image: Linux's `PATH_MAX`, beyond which nothing can be opened.
pub const MAX_REFERENCE: usize = 4096;
