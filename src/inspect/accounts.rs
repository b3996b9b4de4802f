//! Who may log in: users and groups of a guest. Passwords are told to be there or not, never what they are.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Reader;
use crate::error::Result;
use crate::fs::tree::FileId;
use crate::limits;

/// A user of `/etc/passwd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct User {
    /// The name to log in with.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The name of that group.
    pub group: Option<String>,
    /// The name for people.
    pub comment: String,
    /// The home directory.
    pub home: String,
    /// What is run at login.
    pub shell: String,
    /// `set`, `locked` (none would fit), `empty` (none is needed), or `unknown`.
    pub password: &'static str,
    /// Other groups that the user is in.
    pub groups: Vec<String>,
    /// Keys that `~/.ssh/authorized_keys` lets in.
    pub authorized_keys: usize,
}

const LONGEST: usize = 256;

/// The users in the order of the file, at most [`limits::MAX_ACCOUNTS`].
pub(super) fn users(reader: &mut Reader<'_>) -> Result<Vec<User>> {
    let passwd = reader.text("/etc/passwd")?.unwrap_or_default();
    let shadow = reader.text("/etc/shadow")?.unwrap_or_default();
    let shadow: HashMap<&str, &str> = shadow.lines().filter_map(|line| two(line)).collect();
    let mut users: Vec<User> =
        passwd.lines().filter_map(|line| user(line, &shadow)).take(limits::MAX_ACCOUNTS).collect();
    let places: HashMap<String, usize> =
        users.iter().enumerate().map(|(place, user)| (user.name.clone(), place)).collect();
    let groups = reader.text("/etc/group")?.unwrap_or_default();
    let mut names: HashMap<u32, &str> = HashMap::new();
    let mut left = limits::MAX_ACCOUNTS;
    for line in groups.lines() {
        let mut fields = line.split(':');
        let (Some(group), gid, Some(members)) = (fields.next(), fields.nth(1), fields.next()) else { continue };
        if let Some(gid) = gid.and_then(|gid| gid.parse::<u32>().ok()) {
            names.entry(gid).or_insert(group);
        }
        for member in members.split(',') {
            let Some(user) = places.get(member).and_then(|place| users.get_mut(*place)) else { continue };
            let Some(less) = left.checked_sub(1) else { break };
            left = less;
            user.groups.push(bounded(group));
        }
    }
    users.iter_mut().for_each(|user| user.group = names.get(&user.gid).map(|name| bounded(name)));
    count_keys(reader, &mut users)?;
    Ok(users)
}

fn user(line: &str, shadow: &HashMap<&str, &str>) -> Option<User> {
    let mut fields = line.split(':');
    let (name, password) = (fields.next().filter(|name| !name.is_empty())?, fields.next()?);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let password = match if password == "x" { shadow.get(name).copied() } else { Some(password) } {
        None => "unknown",
        Some("") => "empty",
        Some(hash) if hash.starts_with(['!', '*']) => "locked",
        Some(_) => "set",
    };
    let mut next = || bounded(fields.next().unwrap_or_default());
    let (comment, home, shell) = (next(), next(), next());
    Some(User { name: bounded(name), uid, gid, comment, home, shell, password, ..User::default() })
}

/// Counts the keys of each user; a file that several share is read once.
fn count_keys(reader: &mut Reader<'_>, users: &mut [User]) -> Result<()> {
    let mut known: BTreeMap<FileId, usize> = BTreeMap::new();
    for user in users.iter_mut().filter(|user| user.home.starts_with('/')) {
        let path = format!("{}/.ssh/authorized_keys", user.home);
        let Some(found) = reader.tree.find(&path)? else { continue };
        user.authorized_keys = match known.get(&found.id()) {
            Some(count) => *count,
            None => {
                let text = reader.text(&path)?.unwrap_or_default();
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                let count = lines.count();
                known.insert(found.id(), count);
                count
            }
        };
    }
    Ok(())
}

fn two(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(':')?;
    Some((name, rest.split(':').next()?))
}

fn bounded(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::{MemoryFs, Tree};

    fn told(files: &[(&str, &str)]) -> Vec<User> {
        let fs = MemoryFs::default();
        for (path, text) in files {
            fs.add_file(path, text).unwrap();
        }
        users(&mut Reader { tree: &Tree::new(Arc::new(fs)), notes: Vec::new() }).unwrap()
    }

    #[test]
    fn tells_users_with_their_groups_and_keys() {
        let users = told(&[
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/bash\nbad\n:x:1:1:::\nn:x:y:1:::\na:x:1000:1000:A,,:/home/a:/bin/sh\nb:*:9:9:::\nc::7:7\nd:x:8:8:::\n",
            ),
            ("/etc/shadow", "root:$6$x$y:19000:0:::::\na:!:1::::::\nc:*\n"),
            ("/etc/group", "root:x:0:\nsudo:x:27:a,nobody\nwheel:x:10:a,root\nbad\n"),
            ("/home/a/.ssh/authorized_keys", "# mine\nssh-ed25519 AAAA me\n\n  command=\"x\" ssh-rsa BBBB\n"),
        ]);
        let told: Vec<_> = users
            .iter()
            .map(|user| {
                format!(
                    "{} {} {} {} {}",
                    user.name,
                    user.uid,
                    user.password,
                    user.groups.join("+"),
                    user.authorized_keys
                )
            })
            .collect();
        assert_eq!(
            told,
            ["root 0 set wheel 0", "a 1000 locked sudo+wheel 2", "b 9 locked  0", "c 7 empty  0", "d 8 unknown  0"]
        );
        assert_eq!(
            (users[1].comment.as_str(), users[1].home.as_str(), users[1].shell.as_str()),
            ("A,,", "/home/a", "/bin/sh")
        );
    }

    #[test]
    fn as_many_users_as_the_limit() {
        let limit = limits::MAX_ACCOUNTS;
        for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
            let text: String = (0..count).map(|index| format!("u{index}:x:1:1:::\n")).collect();
            assert_eq!(told(&[("/etc/passwd", &text)]).len(), kept);
        }
    }
}
