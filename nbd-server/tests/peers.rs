//! Other people's clients. The programs are nbdinfo, nbdcopy and nbdsh of libnbd, qemu-img, qemu-io and fio; a test fails if
//! one is missing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hyper2kvm_nbd::{Allocation, Builder, Export, Server};
use tempfile::TempDir;

use crate::fixture::{HUGE, Huge, Memory, serve, socket};
use crate::remote::Disk;

/// Runs a program to its end, which must be a good one; returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    #[allow(clippy::disallowed_methods, reason = "a test runs the peers that it talks to")]
    let mut command = Command::new(program);
    // nbdsh is a script that must not find another Python first.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
    let output = command.args(args).env("PATH", path).env("LC_ALL", "C").output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed (nbdkit libnbd-bin qemu-utils fio): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A server that can be reached both ways, and its URIs: the Unix one and the TCP one.
fn both_ways(exports: Builder) -> (TempDir, Server, Vec<String>) {
    let (folder, path) = socket();
    let server = exports.unix(&path).tcp("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let uris = server.uris("");
    (folder, server, uris)
}

fn mixed() -> Builder {
    Server::builder().export("disk", Arc::new(Memory::mixed()))
}

/// The map of the mixed export as base:allocation has it, in whole sectors: offset, length, flags.
const MAP: [(u64, u64, u32); 8] = [
    (0, 1 << 20, 0),
    (1 << 20, 512 << 10, 3),
    (3 << 19, 512 << 10, 2),
    (2 << 20, 100_352, 0),
    (2_197_504, 299_520, 3),
    (2_497_024, 1024, 0),
    (2_498_048, 1_696_256, 3),
    (4 << 20, 512, 0),
];

#[test]
fn nbdinfo_tells_everything() {
    let (_folder, _server, uris) = both_ways(mixed());
    for uri in uris {
        let told = run("nbdinfo", &["--json", &uri]);
        for fact in [
            "\"protocol\": \"newstyle-fixed\"",
            "\"structured\": true",
            "\"export-size\": 4194816",
            "\"description\": \"a disk of every kind\"",
            "\"base:allocation\"",
            "\"is_read_only\": true",
            "\"can_cache\": true",
            "\"can_df\": true",
            "\"can_multi_conn\": true",
            "\"block_size_minimum\": 1",
            "\"block_size_preferred\": 65536",
            "\"block_size_maximum\": 33554432",
        ] {
            assert!(told.contains(fact), "{fact} in {told}");
        }
        assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), "4194816");
        run("nbdinfo", &["--can", "multi-conn", &uri]);
        run("nbdinfo", &["--is", "read-only", &uri]);
    }
}

#[test]
fn nbdinfo_maps_every_extent() {
    let (_folder, _server, uris) = both_ways(mixed());
    for uri in uris {
        let told = run("nbdinfo", &["--map", &uri]);
        let map: Vec<(u64, u64, u32)> = told
            .lines()
            .map(|line| {
                let mut words = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or_default());
                let mut next = || words.next().unwrap();
                (next(), next(), next() as u32)
            })
            .collect();
        assert_eq!(map, MAP);
    }
}

#[test]
fn nbdinfo_lists_every_export() {
    let export = |length| Arc::new(Memory::new(&[(length, Allocation::Data)]));
    let builder = Server::builder().export("disk0", export(512)).export("disk1", export(1024)).export("ß p", export(7));
    let (_folder, _server, uris) = both_ways(builder);
    for uri in uris {
        let told = run("nbdinfo", &["--list", "--json", &uri]);
        for fact in ["\"export-name\": \"disk0\"", "\"export-name\": \"disk1\"", "\"export-name\": \"ß p\"", "1024"] {
            assert!(told.contains(fact), "{fact} in {told}");
        }
    }
}

#[test]
fn nbdcopy_copies_every_byte() {
    let want = Memory::mixed().bytes;
    let (folder, _server, uris) = both_ways(mixed());
    let output = folder.path().join("copy.raw");
    for uri in uris {
        for args in
            [&["--connections=4", "--requests=64"][..], &["--request-size=65536", "--threads=1"], &["--synchronous"]]
        {
            let _ = fs::remove_file(&output);
            run("nbdcopy", &[args, &[&uri, output.to_str().unwrap()]].concat());
            assert!(bytes(&output) == want, "{args:?}");
        }
    }
}

#[test]
fn qemu_img_reads_every_byte() {
    let want = Memory::mixed().bytes;
    let (folder, _server, uris) = both_ways(mixed());
    let reference = folder.path().join("reference.raw");
    fs::write(&reference, &want).unwrap();
    let reference = reference.to_str().unwrap();
    for uri in uris {
        let info = run("qemu-img", &["info", "--output=json", "-f", "raw", &uri]);
        assert!(info.contains("\"virtual-size\": 4194816"), "{info}");
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, reference]);
        let output = folder.path().join("converted.qcow2");
        let output = output.to_str().unwrap();
        for args in [&["-m", "16", "-W"][..], &[]] {
            run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], args, &[&uri, output]].concat());
            run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", output, reference]);
        }
        let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
        assert!(
            map.contains("{ \"start\": 1572864, \"length\": 524288, \"depth\": 0, \"present\": true, \"zero\": true"),
            "{map}"
        );
    }
}

#[test]
fn qemu_io_reads_and_cannot_write() {
    let (_folder, _server, uris) = both_ways(mixed());
    for uri in uris {
        run("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0 1m 1m", "-c", "read -v 4194304 512", &uri]);
        #[allow(clippy::disallowed_methods, reason = "a test runs the peers that it talks to")]
        let refused = Command::new("qemu-io").args(["-f", "raw", "-c", "write 0 512", &uri]).output().unwrap();
        assert!(!refused.status.success());
    }
}

#[test]
fn nbdsh_uses_every_command() {
    let script = r#"
import errno
data = h.pread(1048576 + 4096, 0)
assert h.is_read_only() and h.can_df() and h.can_cache() and h.can_flush() and h.can_multi_conn()
assert h.get_structured_replies_negotiated()
chunks = []
def chunk(buf, offset, status, err):
    chunks.append((offset, len(buf), status))
assert h.pread_structured(131072, 1048576 - 65536, chunk) == data[1048576 - 65536:] + bytearray(131072 - 65536 - 4096)
assert chunks == [(983040, 65536, nbd.READ_DATA), (1048576, 65536, nbd.READ_HOLE)], chunks
chunks = []
h.pread_structured(131072, 1048576 - 65536, chunk, nbd.CMD_FLAG_DF)
assert chunks == [(983040, 131072, nbd.READ_DATA)], chunks
h.cache(65536, 0)
h.flush()
h.set_strict_mode(0)
def refused(call, number):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, error
    else:
        assert False
refused(lambda: h.pwrite(bytearray(512), 0), errno.EPERM)
refused(lambda: h.trim(512, 0), errno.EPERM)
refused(lambda: h.zero(512, 0), errno.EPERM)
refused(lambda: h.pread(512, h.get_size()), errno.EINVAL)
refused(lambda: h.cache(512, h.get_size()), errno.EINVAL)
one = []
h.block_status(1048576, 1048576, lambda context, offset, entries, err: one.extend(entries), nbd.CMD_FLAG_REQ_ONE)
assert one == [524288, 3], one
cookies = [h.aio_pread(nbd.Buffer(65536), at * 65536) for at in range(64)]
while cookies:
    h.poll(-1)
    cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]
assert h.pread(1048576 + 4096, 0) == data
h.shutdown()
"#;
    let (_folder, _server, uris) = both_ways(mixed());
    for uri in uris {
        run("nbdsh", &["--base-allocation", "-u", &uri, "-c", script]);
    }
}

#[test]
fn nbdsh_negotiates_step_by_step() {
    let script = r#"
h.set_opt_mode(True)
h.add_meta_context("base:allocation")
h.connect_uri(URI)
names = []
h.opt_list(lambda name, description: names.append((name, description)))
assert names == [("disk", "a disk of every kind")], names
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.set_export_name("none")
try:
    h.opt_info()
    assert False
except nbd.Error:
    pass
h.set_export_name("disk")
h.opt_info()
assert h.get_size() == 4194816 and h.get_block_size(nbd.SIZE_PREFERRED) == 65536
h.opt_go()
assert h.can_meta_context("base:allocation")
assert len(h.pread(512, 4194304)) == 512
h.shutdown()
h = nbd.NBD()
h.set_handshake_flags(0)
h.set_request_structured_replies(False)
h.connect_uri(URI)
assert h.get_protocol() == "newstyle" and not h.get_structured_replies_negotiated()
assert h.pread(4194816, 0)[1048576:2097152] == bytearray(1048576)
h.shutdown()
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(URI)
h.opt_abort()
"#;
    let (_folder, _server, uris) = both_ways(mixed());
    for uri in uris {
        run("nbdsh", &["-c", &format!("URI = {uri:?}"), "-c", script]);
    }
}

#[test]
fn fio_reads_at_depth_32() {
    let (_folder, _path, server) = serve(Memory::new(&[(16 << 20, Allocation::Data)]));
    let uri = format!("--uri={}", server.uri());
    let told = run(
        "fio",
        &[
            "--name=read",
            "--ioengine=nbd",
            &uri,
            "--rw=randread",
            "--bs=4k",
            "--iodepth=32",
            "--io_size=32m",
            "--output-format=terse",
        ],
    );
    assert_eq!(told.trim().split(';').nth(4), Some("0"), "no error in {told}");
    assert!(server.stats().requests >= 8192);
}

#[test]
fn nbdkit_serves_it_on() {
    let want = Memory::mixed().bytes;
    let (folder, _server, uris) = both_ways(mixed());
    let output = folder.path().join("copy.raw");
    let uri = format!("uri={}", uris[0]);
    run("nbdkit", &["-U", "-", "-r", "nbd", &uri, "--run", &format!("nbdcopy \"$uri\" {}", output.display())]);
    assert!(bytes(&output) == want);
}

fn bytes(path: &Path) -> Vec<u8> {
    #[allow(clippy::disallowed_methods, reason = "a test looks at what a peer wrote")]
    fs::read(path).unwrap()
}

/// A writable server, and its URIs: the Unix one and the TCP one.
fn writable(size: usize) -> (TempDir, Server, Vec<String>, Arc<Disk>) {
    let disk = Arc::new(Disk::new(size));
    let exports = Server::builder().export("disk", Arc::clone(&disk) as Arc<dyn Export>);
    let (folder, server, uris) = both_ways(exports);
    (folder, server, uris, disk)
}

#[test]
fn qemu_io_writes() {
    let (_folder, _server, uris, disk) = writable(8 << 20);
    for uri in uris {
        let commands = [
            "write -P 7 1m 1m",
            "write -P 9 1536k 512",
            "write -f -P 8 3m 3m",
            "write -z 1m 256k",
            "write -z -u 1280k 128k",
            "discard 5m 1m",
            "flush",
            "read -P 0 1m 384k",
            "read -P 9 1536k 512",
            "read -P 8 3m 2m",
            "aio_write -P 5 0 64k",
            "aio_write -P 6 64k 64k",
            "aio_flush",
            "read -P 6 64k 64k",
        ];
        let commands: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        run("qemu-io", &[&["-f", "raw"], &commands[..], &[&uri]].concat());
        assert!(disk.flushes.load(std::sync::atomic::Ordering::SeqCst) > 0);
    }
}

#[test]
fn copies_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    let want = [Memory::mixed().bytes, vec![0; 300_000 / 512 * 512]].concat();
    fs::write(&source, &want).unwrap();
    let source = source.to_str().unwrap();
    let (_folder, _server, uris, disk) = writable(want.len());
    let clear = || disk.bytes.lock().unwrap().fill(0xcc);
    for uri in &uris {
        clear();
        run("nbdcopy", &[source, uri]);
        assert!(*disk.bytes.lock().unwrap() == want, "nbdcopy");
        clear();
        run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "-m", "16", "-W", source, uri]);
        assert!(*disk.bytes.lock().unwrap() == want, "qemu-img");
        clear();
        let through = format!("uri={uri}");
        run("nbdkit", &["-U", "-", "nbd", &through, "--run", &format!("nbdcopy {source} \"$uri\"")]);
        assert!(*disk.bytes.lock().unwrap() == want, "nbdkit");
    }
}

#[test]
fn fio_writes_and_verifies_over_four_connections() {
    let (_folder, _server, uris, _disk) = writable(32 << 20);
    let jobs = uris.iter().enumerate().map(|(at, uri)| {
        let uri = format!("--uri={uri}");
        run(
            "fio",
            &[
                "--name=verify",
                "--ioengine=nbd",
                &uri,
                "--rw=randwrite",
                "--bsrange=4k-64k",
                "--iodepth=16",
                "--size=16m",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--verify_state_save=0",
                "--output-format=terse",
                &format!("--offset={}m", at * 16),
            ],
        )
    });
    for told in jobs {
        assert_eq!(told.trim().split(';').nth(4), Some("0"), "no error in {told}");
    }
}

#[test]
fn nbdsh_writes_with_every_flag() {
    let script = r#"
import errno
assert not h.is_read_only() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_fast_zero() and h.can_multi_conn()
h.pwrite(b"x" * 1000, 5, nbd.CMD_FLAG_FUA)
assert h.pread(1002, 4) == b"\0" + b"x" * 1000 + b"\0"
h.zero(500, 100)
h.zero(500, 100, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
h.zero(500, 100, nbd.CMD_FLAG_FAST_ZERO)
try:
    h.zero(500, 100, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    assert False
except nbd.Error as error:
    assert error.errnum == errno.ENOTSUP, error
assert h.pread(502, 99) == b"x" + b"\0" * 500 + b"x"
h.trim(4096, 0, nbd.CMD_FLAG_FUA)
h.flush()
assert h.pread(1005, 0) == bytearray(1005)
h.set_strict_mode(0)
try:
    h.pwrite(b"x" * 512, h.get_size())
    assert False
except nbd.Error as error:
    assert error.errnum == errno.ENOSPC, error
status = []
h.block_status(65536, 131072, lambda context, offset, entries, err: status.append((context, entries)) if context == "x:parity" else 0)
assert status == [("x:parity", [65536, 0])], status
h.shutdown()
"#;
    let (_folder, _server, uris, _disk) = writable(1 << 20);
    for uri in uris {
        run("nbdsh", &["-c", "h.add_meta_context('x:parity')", "-c", &format!("h.connect_uri({uri:?})"), "-c", script]);
    }
}

#[test]
fn libnbd_reaches_the_ends_of_an_export_of_8_eib() {
    let (_folder, _server, uris) = both_ways(Server::builder().export("huge", Arc::new(Huge)));
    let script = r#"
size = h.get_size()
assert size == 2**63 - 512, size
for at, want in [(0, 0), (2**32 - 1, 0), (2**32, 1), (2**32 + 1, 0), (size - 2, 0), (size - 1, 1)]:
    assert h.pread(1, at) == bytes([want]), at
assert h.pread(4, 2**32 - 2) == b"\0\0\1\0"
h.pwrite(b"x", size - 1)
h.zero(512, size - 512)
status = []
h.block_status(2**31, size - 2**31, lambda context, offset, entries, err: status.extend(entries))
assert status == [2**31, 2], status
h.shutdown()
"#;
    for uri in uris {
        assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), HUGE.to_string());
        let connect = format!("h.connect_uri({uri:?})");
        run("nbdsh", &["-c", "h.add_meta_context('base:allocation')", "-c", &connect, "-c", script]);
    }
}
