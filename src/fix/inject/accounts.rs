//! Users and groups (passwd(5), shadow(5), group(5), gshadow(5)) and the keys that let users in.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{FIX, NewUser, WHY, absent, bad_value};
use crate::error::Result;
use crate::fix::draft::{Draft, Put, Vital};
use crate::fix::text::edit_lines;
use crate::fs::FileKind;
use crate::limits;

/// Numbers of users where `/etc/login.defs` says nothing.
const UIDS: (u32, u32) = (1000, 60_000);

/// Files of `/etc/skel` that a new home gets.
const MAX_SKEL: usize = 64;

pub(super) fn plan(draft: &mut Draft<'_>, users: &[NewUser]) -> Result<()> {
    users.iter().try_for_each(|user| one(draft, user))
}

/// A line of `/etc/passwd`.
struct Account {
    uid: u32,
    gid: u32,
    home: String,
}

fn one(draft: &mut Draft<'_>, user: &NewUser) -> Result<()> {
    check(user)?;
    let mut tables = Tables::read(draft)?;
    let known = tables.account(&user.name);
    let is_new = known.is_none();
    let account = match known {
        Some(account) => account,
        None => tables.add(draft, user)?,
    };
    for group in &user.groups {
        tables.join(group, &user.name)?;
    }
    if let Some(hash) = &user.password {
        tables.set_password(&user.name, hash.text());
    }
    let what = if is_new { format!("add the user {}", user.name) } else { format!("change the user {}", user.name) };
    tables.write(draft, &what)?;
    if is_new {
        home(draft, &user.name, &account)?;
    }
    keys(draft, user, &account)
}

fn check(user: &NewUser) -> Result<()> {
    let name = user.name.as_str();
    let is_name = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte));
    if !is_name {
        return Err(bad_value("name of a user", name));
    }
    let is_field = |text: &str| !text.contains(':') && !text.chars().any(char::is_control) && text.len() <= 256;
    if !is_field(&user.comment) {
        return Err(bad_value("comment of a user", &user.comment));
    }
    for path in user.home.iter().chain(&user.shell) {
        if !path.starts_with('/') || !is_field(path) || path.contains("..") {
            return Err(bad_value("absolute path", path));
        }
    }
    for key in &user.ssh_keys {
        let is_key = key.len() <= 16 << 10
            && !key.chars().any(char::is_control)
            && key.split(' ').any(|word| word.starts_with("AAAA"))
            && ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| key.split(' ').any(|word| word.starts_with(kind)));
        if !is_key {
            return Err(
                bad_value("public key of SSH", "a line that is none").hint("a key's .pub file is what is wanted")
            );
        }
    }
    Ok(())
}

/// The four tables as they will be.
struct Tables {
    passwd: (String, Vec<u8>),
    group: (String, Vec<u8>),
    shadow: Option<(String, Vec<u8>)>,
    gshadow: Option<(String, Vec<u8>)>,
}

impl Tables {
    fn read(draft: &mut Draft<'_>) -> Result<Self> {
        let lacks = |path: &str| absent("the guest has no table of accounts", path);
        Ok(Self {
            passwd: draft.read("/etc/passwd")?.ok_or_else(|| lacks("/etc/passwd"))?,
            group: draft.read("/etc/group")?.ok_or_else(|| lacks("/etc/group"))?,
            shadow: draft.read("/etc/shadow")?,
            gshadow: draft.read("/etc/gshadow")?,
        })
    }

    fn account(&self, name: &str) -> Option<Account> {
        let text = String::from_utf8_lossy(&self.passwd.1);
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [found, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
            let account = || Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: (*home).to_owned() });
            if *found == name { account() } else { None }
        })
    }

    /// Adds a user with a group of the same name.
    fn add(&mut self, draft: &mut Draft<'_>, user: &NewUser) -> Result<Account> {
        let (low, high) = range(draft)?;
        let uids = numbers(&self.passwd.1);
        let gids = numbers(&self.group.1);
        let free = |number: &u32| !uids.contains(number) && !gids.contains(number);
        let uid = match user.uid {
            Some(uid) if uids.contains(&uid) => {
                return Err(bad_value("number that is free for a user", &uid.to_string()));
            }
            Some(uid) => uid,
            None => (low..=high).find(free).ok_or_else(|| absent("no number is free for a user", &user.name))?,
        };
        let name = user.name.as_str();
        let own = group_number(&self.group.1, name);
        let gid = match own {
            Some(gid) => gid,
            None if !gids.contains(&uid) => uid,
            None => (low..=high).find(|gid| !gids.contains(gid)).unwrap_or(uid),
        };
        let home = user.home.clone().unwrap_or_else(|| format!("/home/{name}"));
        let has_bash = draft.tree().exists("/bin/bash")?;
        let shell = user.shell.as_deref().unwrap_or(if has_bash { "/bin/bash" } else { "/bin/sh" });
        let password = if self.shadow.is_some() { "x" } else { "!" };
        let line = format!("{name}:{password}:{uid}:{gid}:{}:{home}:{shell}", user.comment);
        self.passwd.1 = with_line(&self.passwd.1, &line);
        if let Some((_, shadow)) = &mut self.shadow {
            *shadow = with_line(shadow, &format!("{name}:!::0:99999:7:::"));
        }
        if own.is_none() {
            self.group.1 = with_line(&self.group.1, &format!("{name}:x:{gid}:"));
            if let Some((_, gshadow)) = &mut self.gshadow {
                *gshadow = with_line(gshadow, &format!("{name}:!::"));
            }
        }
        Ok(Account { uid, gid, home })
    }

    fn join(&mut self, group: &str, name: &str) -> Result<()> {
        if group_number(&self.group.1, group).is_none() {
            return Err(absent("the guest has no such group", group));
        }
        self.group.1 = with_member(&self.group.1, group, name);
        if let Some((_, gshadow)) = &mut self.gshadow {
            *gshadow = with_member(gshadow, group, name);
        }
        Ok(())
    }

    fn set_password(&mut self, name: &str, hash: &str) {
        let table = self.shadow.as_mut().unwrap_or(&mut self.passwd);
        table.1 = edit_lines(&table.1, |_, line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            let is_own = fields.first() == Some(&name);
            let field = fields.get_mut(1).filter(|field| is_own && **field != hash)?;
            *field = hash;
            Some(fields.join(":"))
        });
    }

    fn write(self, draft: &mut Draft<'_>, what: &str) -> Result<()> {
        let tables = [Some(self.passwd), Some(self.group), self.shadow, self.gshadow];
        tables.into_iter().flatten().try_for_each(|(path, text)| draft.edit(FIX, &path, text, what, WHY, Vital::No))
    }
}

/// A table with a line more: at its end, but before lines that lead to a directory service (`+::`).
fn with_line(table: &[u8], line: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(table.len().saturating_add(line.len()));
    let mut rest = table;
    while !rest.is_empty() && !rest.starts_with(b"+") {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at.saturating_add(1));
        let (head, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        out.extend(head);
        rest = tail;
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.extend(line.bytes());
    out.push(b'\n');
    out.extend(rest);
    out
}

fn with_member(table: &[u8], group: &str, name: &str) -> Vec<u8> {
    edit_lines(table, |_, line| {
        let (head, members) = line.rsplit_once(':')?;
        let is_there = members.split(',').any(|member| member == name);
        if line.split(':').next() != Some(group) || line.split(':').count() != 4 || is_there {
            return None;
        }
        let comma = if members.is_empty() { "" } else { "," };
        Some(format!("{head}:{members}{comma}{name}"))
    })
}

/// The numbers in the third fields.
fn numbers(table: &[u8]) -> Vec<u32> {
    let text = String::from_utf8_lossy(table);
    text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

fn group_number(table: &[u8], name: &str) -> Option<u32> {
    let text = String::from_utf8_lossy(table);
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn range(draft: &mut Draft<'_>) -> Result<(u32, u32)> {
    let text = draft.read("/etc/login.defs")?.map(|(_, text)| text).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| {
        let mut lines = text.lines().map(str::split_ascii_whitespace);
        lines.find_map(|mut words| if words.next() == Some(key) { words.next()?.parse().ok() } else { None })
    };
    Ok((value("UID_MIN").unwrap_or(UIDS.0), value("UID_MAX").unwrap_or(UIDS.1)))
}

/// A home with the files of `/etc/skel`.
fn home(draft: &mut Draft<'_>, name: &str, account: &Account) -> Result<()> {
    if draft.tree().exists(&account.home)? {
        return Ok(());
    }
    let put =
        |mode, selinux| Put { mode, uid: account.uid, gid: account.gid, is_private: false, selinux: Some(selinux) };
    draft.put_dir(FIX, &account.home, &put(0o700, "user_home_dir_t"), &format!("make the home of {name}"), WHY)?;
    let entries = draft.tree().list("/etc/skel")?;
    for entry in entries.iter().filter(|entry| entry.kind == FileKind::Regular).take(MAX_SKEL) {
        let Some(file) = entry.text() else { continue };
        let path = format!("/etc/skel/{file}");
        let Some(found) = draft.tree().find(&path)?.filter(|found| found.stat.size <= limits::MAX_GUEST_CONFIG) else {
            continue;
        };
        let content = draft.tree().read(&path, limits::MAX_GUEST_CONFIG)?.unwrap_or_default();
        let to = format!("{}/{file}", account.home);
        draft.put(FIX, &to, &put(found.stat.mode & 0o777, "user_home_t"), content, "copy it from /etc/skel", WHY)?;
    }
    Ok(())
}

/// Lets keys in.
fn keys(draft: &mut Draft<'_>, user: &NewUser, account: &Account) -> Result<()> {
    if user.ssh_keys.is_empty() {
        return Ok(());
    }
    let dir = format!("{}/.ssh", account.home.trim_end_matches('/'));
    let path = format!("{dir}/authorized_keys");
    let what = format!("let {} of {} in", if user.ssh_keys.len() == 1 { "a key" } else { "keys" }, user.name);
    let put = |mode| Put { mode, uid: account.uid, gid: account.gid, is_private: false, selinux: Some("ssh_home_t") };
    draft.put_dir(FIX, &dir, &put(0o700), &what, WHY)?;
    // sshd looks at no keys that others than their owner could have put there.
    let open = draft.tree().find(&dir)?.filter(|found| found.stat.mode & 0o022 != 0);
    if let Some(path) = open.as_ref().and_then(|found| found.text()) {
        draft.mode(FIX, path, 0o700, "let nobody else put keys there", "sshd refuses such a directory")?;
    }
    let old = draft.read(&path)?.map(|(_, text)| text).unwrap_or_default();
    let known = String::from_utf8_lossy(&old).into_owned();
    let mut missing: Vec<&str> = Vec::new();
    for key in user.ssh_keys.iter().map(|key| key.trim()) {
        if !known.lines().any(|line| line.trim() == key) && !missing.contains(&key) {
            missing.push(key);
        }
    }
    let content = crate::fix::text::add_lines(&old, missing);
    draft.put(FIX, &path, &put(0o600), content, &what, WHY)?;
    let why = "sshd may read no keys with another";
    draft.relabel(FIX, &dir, why)?;
    draft.relabel(FIX, &path, why)
}
