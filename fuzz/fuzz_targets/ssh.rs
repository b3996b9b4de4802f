//! Files of known hosts, configuration files of OpenSSH and packets of SFTP servers, whatever is in them: the first byte says which.
#![no_main]

use hyper2kvm::source::ssh_tried;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&what, rest)) = data.split_first() else { return };
    if let 2.. = what {
        return ssh_tried::packet(what, rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut pieces = text.split('\0');
    let host = pieces.next().unwrap_or_default();
    match what {
        0 => ssh_tried::known_hosts(pieces.next().unwrap_or_default(), host),
        _ => ssh_tried::configuration(&pieces.take(40).collect::<Vec<_>>(), host),
    }
});
