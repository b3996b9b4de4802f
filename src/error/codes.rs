//! The stable error codes and what `hyper2kvm help CODE` says of each.

/// Every code with its explanation, sorted by code. A test fails when the source uses one that is not here.
pub const CODES: &[(&str, &str)] = &[
    (
        "disk.range",
        "A read or write went past the end of a disk. The image's own metadata points outside of the data it describes, or the file was cut short.",
    ),
    ("fault.injected", "A failure injected on purpose by a test layer. It never occurs in normal use."),
    (
        "output.full",
        "The file system of the output has no room left. Nothing appears under the final name; free some space or choose another directory, then run the same command again.",
    ),
    ("output.write", "The operating system refused a write to the output. The cause says why."),
    (
        "overlay.frozen",
        "Something tried to change a disk whose fixes were already complete. This is a bug in hyper2kvm, please report it.",
    ),
    (
        "overlay.full",
        "The changes to the disk do not fit into the overlay's share of the memory budget. Give a larger --memory.",
    ),
    ("overlay.spill", "The overlay lost its spill file. This is a bug in hyper2kvm, please report it."),
    (
        "session.interrupted",
        "A signal or the caller asked the command to stop. Nothing appears under the final name; run the same command again.",
    ),
    ("source.read", "The operating system could not read the source. The cause says why."),
];

/// What `code` means, if it is one of ours.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    let index = CODES.binary_search_by_key(&code, |(known, _)| known).ok()?;
    CODES.get(index).map(|(_, text)| *text)
}
