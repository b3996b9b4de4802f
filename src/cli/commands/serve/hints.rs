//! How other programs use a server: lines to paste.

use hyper2kvm_nbd::Server;

use crate::cli::args::ServeArgs;

/// A line for each of the usual clients, and libvirt's element.
pub(super) fn of(uri: &str, server: &Server, args: &ServeArgs, writable: bool) -> String {
    let snapshot = if writable { "" } else { ",snapshot=on" };
    let mut text = format!(
        "  nbdinfo --list '{uri}'\n  \
           nbdcopy '{uri}' disk.raw\n  \
           qemu-img convert -O qcow2 '{uri}' disk.qcow2\n  \
           qemu-system-x86_64 -m 2G -drive file='{uri}',format=raw,if=virtio{snapshot}\n  \
           nbdfuse disk.raw '{uri}'\n"
    );
    text.push_str(&libvirt(uri, server, args, writable));
    text
}

/// The disk of a libvirt domain.
fn libvirt(uri: &str, server: &Server, args: &ServeArgs, writable: bool) -> String {
    let tls = if args.tls_certificates.is_some() { " tls='yes'" } else { "" };
    let host = match (socket_of(uri), server.tcp_address()) {
        (Some(socket), _) => format!("<host transport='unix' socket='{}'/>", xml(&socket)),
        (None, Some(address)) => format!("<host name='{}' port='{}'/>", address.ip(), address.port()),
        (None, None) => return String::new(),
    };
    let export = if args.export.is_empty() { String::new() } else { format!(" name='{}'", xml(&args.export)) };
    let access = if writable { "" } else { "<readonly/>" };
    format!(
        "  <disk type='network' device='disk'><driver name='qemu' type='raw'/>\
         <source protocol='nbd'{export}{tls}>{host}</source><target dev='vda' bus='virtio'/>{access}</disk>\n"
    )
}

/// The path of the socket in a server's own URI.
pub(super) fn socket_of(uri: &str) -> Option<String> {
    let (_, encoded) = uri.split_once("?socket=")?;
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Text in an attribute between apostrophes.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_in_its_uri() {
        assert_eq!(socket_of("nbd+unix:///?socket=/tmp/a%20b").unwrap(), "/tmp/a b");
        assert_eq!(socket_of("nbds+unix:///disk1/p1?socket=/r/%C3%9F.sock").unwrap(), "/r/ß.sock");
        assert_eq!(socket_of("nbd://127.0.0.1:10809/"), None);
    }

    #[test]
    fn attributes_stay_attributes() {
        assert_eq!(xml("a'b<&"), "a&apos;b&lt;&amp;");
    }
}
