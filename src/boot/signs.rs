//! What lines of a console mean.

use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::error::{Error, Kind, Result};

/// The usual signs of life; any one will do when the caller expects nothing in particular.
const LIFE: &[(&str, &str)] = &[
    ("bootmark", r"\bBOOTMARK "),
    ("login-prompt", r"\blogin:( |$)"),
    ("multi-user", r"Reached target (multi-user\.target|graphical\.target|Multi-User System|Graphical Interface)"),
];

/// Signs that a guest will not come up by itself.
const DEATH: &[(&str, &str)] = &[
    ("boot-loader", r"grub rescue>|^grub>|Entering rescue mode|you need to load the kernel first"),
    (
        "emergency-mode",
        r"You are in (emergency|rescue) mode|Reached target (emergency\.target|Emergency Mode)|Entering emergency mode|Give root password for|rdsosreport\.txt",
    ),
    ("firmware", r"No bootable device|BdsDxe: No bootable option|UEFI Interactive Shell"),
    ("initramfs-shell", r"\(initramfs\)|Gave up waiting for root|ALERT! .* does not exist"),
    ("kernel-panic", r"Kernel panic - not syncing|end Kernel panic|Unable to mount root fs|No working init found"),
];

/// How far a guest came.
const MILESTONES: &[(&str, &str)] = &[
    ("firmware", r"SeaBIOS|BdsDxe|UEFI"),
    ("boot-loader", r"GRUB|Loading Linux|Booting `|ISOLINUX|systemd-boot"),
    ("kernel", r"Linux version \d"),
    ("init", r"systemd\[1\]|\[ +OK +\]|INIT: version|OpenRC"),
];

/// What a sign is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Death,
    Life,
    Milestone,
}

/// Every pattern that is looked for.
#[derive(Clone, Debug)]
pub(super) struct Signs {
    set: RegexSet,
    /// Name and meaning of each pattern of the set.
    names: Vec<(String, Meaning)>,
    /// Signs of life that must be seen.
    needed: usize,
}

impl Signs {
    /// The usual signs, with `expect` in place of the usual signs of life if it names any.
    pub(super) fn new(expect: &[String]) -> Result<Self> {
        let usual = |(name, pattern): &(&str, &str), meaning| ((*name).to_owned(), (*pattern).to_owned(), meaning);
        let life: Vec<_> = if expect.is_empty() {
            LIFE.iter().map(|sign| usual(sign, Meaning::Life)).collect()
        } else {
            expect.iter().map(|pattern| (pattern.clone(), pattern.clone(), Meaning::Life)).collect()
        };
        let death = DEATH.iter().map(|sign| usual(sign, Meaning::Death));
        let milestones = MILESTONES.iter().map(|sign| usual(sign, Meaning::Milestone));
        let all: Vec<_> = life.into_iter().chain(death).chain(milestones).collect();
        let set = RegexSetBuilder::new(all.iter().map(|(_, pattern, _)| pattern)).build().map_err(|cause| {
            Error::new(Kind::Usage, "boot.pattern", "an expected pattern is no regular expression").because(cause)
        })?;
        let names = all.into_iter().map(|(name, _, meaning)| (name, meaning)).collect();
        Ok(Self { set, names, needed: expect.len().max(1) })
    }

    /// The indices of the signs that `line` shows.
    pub(super) fn shown_by(&self, line: &[u8]) -> Vec<usize> {
        self.set.matches(line).into_iter().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Name and meaning of a sign.
    pub(super) fn name(&self, sign: usize) -> Option<(&str, Meaning)> {
        self.names.get(sign).map(|(name, meaning)| (name.as_str(), *meaning))
    }

    /// How many signs of life make a boot.
    pub(super) fn needed(&self) -> usize {
        self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(signs: &Signs, line: &str) -> Vec<(String, Meaning)> {
        signs.shown_by(line.as_bytes()).into_iter().map(|sign| signs.names[sign].clone()).collect()
    }

    #[test]
    fn knows_life_and_death() {
        let signs = Signs::new(&[]).unwrap();
        for (line, name, meaning) in [
            ("debian login: ", "login-prompt", Meaning::Life),
            ("debian login: root (automatic login)", "login-prompt", Meaning::Life),
            ("BOOTMARK kernel=[6.1]", "bootmark", Meaning::Life),
            ("[  OK  ] Reached target multi-user.target - Multi-User System.", "multi-user", Meaning::Life),
            ("[  OK  ] Reached target Multi-User System.", "multi-user", Meaning::Life),
            ("Gave up waiting for root file system device.  Common problems:", "initramfs-shell", Meaning::Death),
            ("ALERT!  /dev/sda1 does not exist.  Dropping to a shell!", "initramfs-shell", Meaning::Death),
            ("(initramfs) ", "initramfs-shell", Meaning::Death),
            ("[    2.1] Kernel panic - not syncing: VFS: Unable to", "kernel-panic", Meaning::Death),
            ("No bootable device.", "firmware", Meaning::Death),
            ("UEFI Interactive Shell v2.2", "firmware", Meaning::Death),
            ("grub rescue> ", "boot-loader", Meaning::Death),
            ("Generating \"/run/initramfs/rdsosreport.txt\"", "emergency-mode", Meaning::Death),
            ("You are in emergency mode. After logging in, type", "emergency-mode", Meaning::Death),
            ("[    0.000000] Linux version 6.1.0-50-amd64", "kernel", Meaning::Milestone),
        ] {
            assert!(names(&signs, line).contains(&(name.to_owned(), meaning)), "{line}");
        }
    }

    #[test]
    fn does_not_mistake_what_only_looks_like_it() {
        let signs = Signs::new(&[]).unwrap();
        for line in [
            "Gave up waiting for suspend/resume device",
            "[  OK  ] Started systemd-logind.service - User Login Management.",
            "[  OK  ] Reached target getty.target - Login Prompts.",
            "[  OK  ] Reached target Local File Systems.",
            "         Starting Emergency Shell units are not started",
            "Welcome to GRUB!",
        ] {
            let found = names(&signs, line);
            assert!(found.iter().all(|(_, meaning)| *meaning == Meaning::Milestone), "{line}: {found:?}");
        }
    }

    #[test]
    fn expected_patterns_replace_the_usual_signs_of_life() {
        let signs = Signs::new(&["ip=\\[10\\.".to_owned(), "READY".to_owned()]).unwrap();
        assert_eq!(signs.needed(), 2);
        assert!(names(&signs, "host login: ").is_empty());
        assert_eq!(names(&signs, "READY ip=[10.0.2.15]").len(), 2);
        assert_eq!(Signs::new(&["(".to_owned()]).unwrap_err().code(), "boot.pattern");
    }
}
