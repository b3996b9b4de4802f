//! Whatever a web server answers: a source or an error, soon. The first piece is a netrc file, each other one an answer.
#![no_main]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hyper2kvm::session::{Access, Patience, Secret, Session};
use hyper2kvm::source::{Address, open_remote};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut pieces = data.split(|byte| *byte == 0xff).map(<[u8]>::to_vec);
    let netrc = pieces.next().map(Secret::new);
    let answers: Vec<_> = pieces.take(8).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = listener.local_addr().expect("its address");
    let server = std::thread::spawn(move || {
        // One connection without a request more than there are answers ends it.
        for answer in answers.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..])) {
            let Ok((mut peer, _)) = listener.accept() else { return };
            if peer.read(&mut [0; 4096]).is_ok_and(|len| len == 0) {
                return;
            }
            let _ = peer.write_all(answer);
        }
    });
    let soon = Duration::from_millis(200);
    let session = Session::with_defaults();
    let patience = Patience { connect: soon, silence: soon, retries: 0 };
    session.give_access(Access { netrc, patience, ..Access::default() });
    let address = Address::parse(&format!("http://{place}/disk.raw")).expect("an address");
    if let Ok(source) = open_remote(&address, &session) {
        let mut buf = vec![0; usize::try_from(source.len()).unwrap_or(usize::MAX).min(1 << 20)];
        let _ = source.read_at(&mut buf, 0);
    }
    drop(TcpStream::connect(place));
    server.join().expect("the server");
});
