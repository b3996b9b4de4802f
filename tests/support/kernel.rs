//! What this machine's kernel is new enough for.

/// Whether it knows what options of a mkfs make, of which some need a kernel of a version. It is said where it does not.
pub(crate) fn knows(options: &[&str], since: &[(&str, (u32, u32))]) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().expect("a number"));
    let version = (numbers.next().expect("a version"), numbers.next().expect("its second number"));
    let is_old = |(name, since): &(&str, _)| version < *since && options.iter().any(|option| option.contains(name));
    let known = !since.iter().any(is_old);
    if !known {
        eprintln!("Linux {} does not know {options:?}", release.trim());
    }
    known
}
