//! What the user's configuration of OpenSSH says of a host (`ssh_config(5)`): as much of it as says where the host is, who we are
//! there, and whom we trust.
//!
//! For each option the first value counts. Options that are not known here are left, as long as that trusts nobody more; what would
//! have to run a program is refused where it is needed.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::error::{Error, Kind, Result};
use crate::limits;

/// What is set for one host. Names of files are as written, with tokens in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) host_name: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    /// All of them are used.
    pub(super) identity_files: Vec<String>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<String>,
    pub(super) host_key_alias: Option<String>,
    pub(super) user_known_hosts: Option<Vec<String>>,
    pub(super) global_known_hosts: Option<Vec<String>>,
    pub(super) revoked_host_keys: Option<String>,
    pub(super) proxy: Option<Proxy>,
    pub(super) public_key: Option<bool>,
    pub(super) password: Option<bool>,
}

/// How a host is reached, if not directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// `none`.
    None,
    /// `ProxyJump`: hosts, with commas in between.
    Jump(String),
    /// `ProxyCommand`.
    Command,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// The host as the user named it.
    pub(super) host: &'a str,
    /// The name at that host, as far as it is known before.
    pub(super) user: Option<&'a str>,
    /// The name at this host.
    pub(super) local_user: &'a str,
}

/// Gives the texts of the files that an `Include` names.
pub(super) type Include<'a> = dyn FnMut(&str) -> Result<Vec<String>> + 'a;

impl Options {
    /// Adds what the configuration file `text` says.
    ///
    /// # Errors
    /// `ssh.config` for lines that cannot be what they begin as.
    pub(super) fn add(&mut self, text: &str, asker: &Asker<'_>, include: &mut Include<'_>) -> Result<()> {
        self.file(text, asker, include, true, 0)
    }

    /// `active`: whether the place of the `Include` is in force; otherwise nothing below it is.
    fn file(
        &mut self,
        text: &str,
        asker: &Asker<'_>,
        include: &mut Include<'_>,
        active: bool,
        depth: usize,
    ) -> Result<()> {
        if depth > limits::MAX_SSH_INCLUDES {
            return Err(wrong("configuration files include each other without end"));
        }
        let mut fits = active;
        for (number, line) in text.lines().enumerate() {
            let place = |error: Error| error.at(format_args!("line {}", number.saturating_add(1)));
            let Some((keyword, words)) = split(line).map_err(place)? else { continue };
            match keyword.as_str() {
                "host" => fits = active && is_in_list(asker.host, &words),
                "match" => fits = active && self.matches(&words, asker).map_err(place)?,
                "include" if fits => {
                    for word in &words {
                        for text in include(word).map_err(place)? {
                            self.file(&text, asker, include, true, depth.saturating_add(1))?;
                        }
                    }
                }
                _ if fits => self.set(&keyword, &words).map_err(place)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, keyword: &str, words: &[String]) -> Result<()> {
        let first = || words.first().cloned().ok_or_else(|| wrong("a keyword without a value").found(keyword));
        match keyword {
            "hostname" => keep(&mut self.host_name, first()?),
            "port" => {
                let port = first()?.parse().ok().filter(|port| *port != 0);
                keep(&mut self.port, port.ok_or_else(|| wrong("a port that is none"))?);
            }
            "user" => keep(&mut self.user, first()?),
            "identityfile" => {
                let file = first()?;
                if !self.identity_files.contains(&file) && self.identity_files.len() < limits::MAX_SSH_KEYS {
                    self.identity_files.push(file);
                }
            }
            "identitiesonly" => keep(&mut self.identities_only, is_yes(&first()?)?),
            "identityagent" => keep(&mut self.identity_agent, first()?),
            "hostkeyalias" => keep(&mut self.host_key_alias, first()?),
            "userknownhostsfile" => keep(&mut self.user_known_hosts, words.to_vec()),
            "globalknownhostsfile" => keep(&mut self.global_known_hosts, words.to_vec()),
            "revokedhostkeys" => keep(&mut self.revoked_host_keys, first()?),
            "proxyjump" => {
                let jump = first()?;
                keep(&mut self.proxy, if is_none(&jump) { Proxy::None } else { Proxy::Jump(jump) });
            }
            "proxycommand" => {
                keep(&mut self.proxy, if is_none(&first()?) { Proxy::None } else { Proxy::Command });
            }
            "pubkeyauthentication" => keep(&mut self.public_key, first()? != "no"),
            "passwordauthentication" => keep(&mut self.password, is_yes(&first()?)?),
            _ => {}
        }
        Ok(())
    }

    /// Whether a `Match` is in force. What would have to run a program, or look at the network, is not.
    fn matches(&self, words: &[String], asker: &Asker<'_>) -> Result<bool> {
        let mut words = words.iter();
        let mut fits = true;
        while let Some(word) = words.next() {
            let (negated, name) = word.strip_prefix('!').map_or((false, word.as_str()), |name| (true, name));
            let name = name.to_ascii_lowercase();
            if name == "all" {
                fits &= !negated;
                continue;
            }
            if matches!(name.as_str(), "final" | "canonical") {
                // They hold in a second pass over the files only, which is not made.
                fits &= negated;
                continue;
            }
            let patterns = words.next().ok_or_else(|| wrong("a Match without its patterns"))?;
            let patterns: Vec<String> = patterns.split(',').map(str::to_owned).collect();
            let value = match name.as_str() {
                "host" => self.host_name.as_deref().unwrap_or(asker.host),
                "originalhost" => asker.host,
                "user" => asker.user.or(self.user.as_deref()).unwrap_or(asker.local_user),
                "localuser" => asker.local_user,
                _ => return Ok(false),
            };
            fits &= is_in_list(value, &patterns) != negated;
        }
        Ok(fits)
    }
}

fn keep<T>(option: &mut Option<T>, value: T) {
    option.get_or_insert(value);
}

fn is_none(value: &str) -> bool {
    value.eq_ignore_ascii_case("none")
}

fn is_yes(value: &str) -> Result<bool> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(wrong("a value that is neither yes nor no").found(value)),
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Usage, "ssh.config", "the configuration of SSH cannot be used").found(what).hint(
        "name another file with --ssh-config (/dev/null is none), or let the system's ssh do it: --ssh-program ssh",
    )
}

/// The keyword of a line in lower case, and its values; nothing for an empty line or a comment.
fn split(line: &str) -> Result<Option<(String, Vec<String>)>> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    if keyword.is_empty() || keyword.starts_with('#') {
        return Ok(None);
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Ok(Some((keyword.to_ascii_lowercase(), words(rest)?)))
}

/// Words stand apart by white space; quoted ones may have some in them; `#` begins a comment.
fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if matches!(chars.peek(), None | Some('#')) {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match c {
                '\\' => match chars.next_if(|next| matches!(next, '"' | '\'' | '\\')) {
                    Some(next) => word.push(next),
                    None => word.push(c),
                },
                '"' | '\'' if quote.is_none() => quote = Some(c),
                _ if quote == Some(c) => quote = None,
                _ => word.push(c),
            }
        }
        if quote.is_some() {
            return Err(wrong("a quotation mark that is not closed"));
        }
        words.push(word);
    }
}

/// Whether a list of patterns has one for `name`, and none of those that begin with `!` is for it.
pub(super) fn is_in_list<S: AsRef<str>>(name: &str, patterns: &[S]) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.as_ref().strip_prefix('!') {
            Some(pattern) if fits(pattern, name) => return false,
            Some(_) => {}
            None => found |= fits(pattern.as_ref(), name),
        }
    }
    found
}

/// Whether `name` is like `pattern`, in which `*` stands for anything and `?` for one character. Takes steps in the order of the
/// product of both lengths at most.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // Where the last star was, and what it stood before.
    let mut star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let (mut next_pattern, mut next_name) = (pattern.clone(), name.clone());
        match (next_pattern.next(), next_name.next()) {
            (Some('*'), _) => {
                star = Some((next_pattern.clone(), name.clone()));
                pattern = next_pattern;
            }
            (Some(p), Some(n)) if p == '?' || p == n => (pattern, name) = (next_pattern, next_name),
            (None, None) => return true,
            _ => {
                let Some((after, from)) = &mut star else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, name) = (after.clone(), from.clone());
            }
        }
    }
}

/// A value with its tokens resolved, each by `token`: `%h`, `%%`, a leading `~/`, `${NAME}`.
///
/// # Errors
/// `ssh.config` for a token that is not known.
pub(super) fn expand(
    value: &str,
    home: &str,
    token: &dyn Fn(char) -> Option<String>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String> {
    let value = match value.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        Some(_) => return Err(wrong("the home of another user").found(value)),
        None => value.to_owned(),
    };
    let mut out = String::new();
    let mut rest = value.as_str();
    while let Some(at) = rest.find(['%', '$']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let name = after.strip_prefix("${").and_then(|inner| inner.split_once('}'));
        let mut chars = after.chars();
        match (chars.next(), name) {
            (Some('$'), Some((name, others))) => {
                out.push_str(&variable(name).ok_or_else(|| wrong("a variable that is not set").found(name))?);
                rest = others;
            }
            (Some('%'), _) => {
                let found = match chars.next() {
                    Some('%') => Some("%".to_owned()),
                    Some(letter) => token(letter),
                    None => None,
                };
                out.push_str(&found.ok_or_else(|| wrong("a token that is not known here").found(&value))?);
                rest = chars.as_str();
            }
            (first, _) => {
                out.extend(first);
                rest = chars.as_str();
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    const ASKER: Asker<'_> = Asker { host: "store", user: None, local_user: "me" };

    fn options(text: &str) -> Options {
        let mut options = Options::default();
        options.add(text, &ASKER, &mut |_| Ok(Vec::new())).unwrap();
        options
    }

    fn error(text: &str) -> &'static str {
        Options::default().add(text, &ASKER, &mut |_| Ok(vec!["Include x".to_owned()])).unwrap_err().code()
    }

    #[test]
    fn the_first_value_counts_where_the_host_fits() {
        let text = "# mine\nPort=2222\nHost other st* !stop\n  HostName = \"the store\" # there\n\tport 22\nuser a\nUser b\n\
                    IdentityFile ~/one\nIdentityFile ~/two\nIdentityFile ~/one\nHost other\nHostKeyAlias no\n\
                    host *\nhostkeyalias x\nproxyjump none\nProxyCommand evil %h\nSendEnv LANG LC_*\n";
        let found = options(text);
        assert_eq!(
            (found.host_name.as_deref(), found.port, found.user.as_deref()),
            (Some("the store"), Some(2222), Some("a"))
        );
        assert_eq!(found.identity_files, ["~/one", "~/two"]);
        assert_eq!((found.host_key_alias.as_deref(), found.proxy), (Some("x"), Some(Proxy::None)));
        assert_eq!(options("Host !store *\nPort 1\nHost\nPort 2"), Options::default());
        assert_eq!(options("ProxyCommand nc %h %p").proxy, Some(Proxy::Command));
        assert_eq!(options("UserKnownHostsFile a 'b c'").user_known_hosts.unwrap(), ["a", "b c"]);
    }

    #[test]
    fn matches_are_in_force_where_that_can_be_told() {
        for (line, fits) in [
            ("Match all", true),
            ("Match host store", true),
            ("Match !host store", false),
            ("Match originalhost x,st?re localuser me", true),
            ("Match user me", true),
            ("Match user you", false),
            ("Match exec \"true\"", false),
            ("Match host store exec true", false),
            ("Match final all", false),
            ("Match localnetwork 10.0.0.0/8", false),
        ] {
            assert_eq!(options(&format!("{line}\nPort 7")).port.is_some(), fits, "{line}");
        }
        let found = options("HostName other\nMatch host other\nPort 7");
        assert_eq!(found.port, Some(7));
    }

    #[test]
    fn files_are_included_where_they_stand() {
        let mut asked = Vec::new();
        let mut found = Options::default();
        let mut include = |name: &str| {
            asked.push(name.to_owned());
            Ok(vec!["Port 5\nHost nobody\nUser x\n".to_owned(), "User y".to_owned()])
        };
        found.add("Host x\nInclude no\nHost store\nInclude a b\nPort 6\nHostKeyAlias z", &ASKER, &mut include).unwrap();
        assert_eq!(asked, ["a", "b"]);
        assert_eq!(
            (found.port, found.user.as_deref(), found.host_key_alias.as_deref()),
            (Some(5), Some("y"), Some("z"))
        );
    }

    #[test]
    fn hostile_lines_are_errors_or_nothing() {
        for bad in [
            "Port",
            "Port 0",
            "Port 65536",
            "Port -1",
            "Port x",
            "User \"a",
            "User 'a\"",
            "IdentitiesOnly perhaps",
            "PasswordAuthentication",
            "Match host",
            "Include x",
            "HostName #",
        ] {
            assert_eq!(error(bad), "ssh.config", "{bad}");
        }
        for odd in ["", "=", "= =", "#", "\0", "Host", "\u{a0}", "Ünknown x", "Match", "é=\u{2028}"] {
            assert_eq!(options(odd), Options::default(), "{odd:?}");
        }
        assert_eq!(limits::MAX_SSH_KEYS, 64);
        for count in [63, 64, 65] {
            let text: String = (0..count).map(|number| format!("IdentityFile {number}\n")).collect();
            assert_eq!(options(&text).identity_files.len(), count.min(limits::MAX_SSH_KEYS));
        }
        for count in [limits::MAX_SSH_INCLUDES - 1, limits::MAX_SSH_INCLUDES, limits::MAX_SSH_INCLUDES + 1] {
            let mut left = count;
            let mut include = |_: &str| {
                left -= 1;
                Ok(vec![if left == 0 { "Port 1".to_owned() } else { "Include x".to_owned() }])
            };
            let added = Options::default().add("Include x", &ASKER, &mut include);
            assert_eq!(added.is_ok(), count <= limits::MAX_SSH_INCLUDES, "{count}");
        }
    }

    #[test]
    fn patterns_fit_as_they_do_in_a_shell() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("?", "é", true),
            ("??", "a", false),
            ("*.example.com", "x.example.com", true),
            ("*.example.com", "example.com", false),
            ("***a", "bbba", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(100), &"b".repeat(10_000)), "it ends");
    }

    #[test]
    fn tokens_are_resolved() {
        let resolve = |value: &str| {
            let token = |letter| (letter == 'h').then(|| "store".to_owned());
            let variable = |name: &str| (name == "X").then(|| "x%h".to_owned());
            expand(value, "/home/me", &token, &variable)
        };
        for (value, expected) in [
            ("~/.ssh/%h-%%", "/home/me/.ssh/store-%"),
            ("~", "/home/me"),
            ("a~", "a~"),
            ("${X}/$y", "x%h/$y"),
            ("${", "${"),
        ] {
            assert_eq!(resolve(value).unwrap(), expected);
        }
        for bad in ["%", "%z", "${Y}", "~root/x", "a%"] {
            assert_eq!(resolve(bad).unwrap_err().code(), "ssh.config", "{bad}");
        }
    }
}
