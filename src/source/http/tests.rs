//! Against a small server that lies, stalls, breaks off and sends us elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::disk::{Disk, Stream, read_vec};
use crate::session::{Access, Secret};

/// What one request asked for.
#[derive(Clone, Debug, Default)]
struct Request {
    path: String,
    range: Option<(u64, u64)>,
    headers: Vec<String>,
    /// How many came before.
    number: u64,
}

/// What the server sends, and what it does then.
struct Reply {
    head: String,
    body: Vec<u8>,
    then: Then,
}

enum Then {
    KeepOpen,
    Close,
    Stall,
}

type Answer = dyn Fn(&Request, &[u8]) -> Reply + Send + Sync;

/// A server that lives as long as the value.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(content: Vec<u8>, answer: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            requests: Arc::default(),
            sent: Arc::default(),
            stop: Arc::default(),
        };
        let (requests, sent, stop) = (Arc::clone(&server.requests), Arc::clone(&server.sent), Arc::clone(&server.stop));
        let (content, answer): (Arc<Vec<u8>>, Arc<Answer>) = (Arc::new(content), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (requests, sent, content, answer) =
                    (Arc::clone(&requests), Arc::clone(&sent), Arc::clone(&content), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &requests, &sent, &content, &*answer);
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> Address {
        Address::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(
    stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    sent: &AtomicU64,
    content: &[u8],
    answer: &Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut request = Request::default();
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim().to_owned();
            if header.is_empty() {
                break;
            }
            if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (first, last) = range.split_once('-').unwrap();
                request.range = Some((first.parse().unwrap(), last.parse::<u64>().unwrap() + 1));
            }
            request.headers.push(header);
        }
        {
            let mut requests = requests.lock().unwrap();
            request.number = requests.len() as u64;
            requests.push(request.clone());
        }
        let reply = answer(&request, content);
        stream.write_all(reply.head.as_bytes())?;
        stream.write_all(&reply.body)?;
        stream.flush()?;
        sent.fetch_add(reply.body.len() as u64, Ordering::Relaxed);
        match reply.then {
            Then::KeepOpen => {}
            Then::Close => return Ok(()),
            Then::Stall => {
                // Until the other side goes away.
                let _ = reader.read_to_end(&mut Vec::new());
                return Ok(());
            }
        }
    }
}

/// The answer of a good server.
fn good(request: &Request, content: &[u8]) -> Reply {
    let len = content.len() as u64;
    let Some((first, end)) = request.range else {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nETag: \"1\"\r\n\r\n");
        return Reply { head, body: content.to_vec(), then: Then::KeepOpen };
    };
    let end = end.min(len);
    let body = content[first as usize..end as usize].to_vec();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{}/{len}\r\nContent-Length: {}\r\nETag: \"1\"\r\n\r\n",
        end - 1,
        body.len()
    );
    Reply { head, body, then: Then::KeepOpen }
}

fn replaced(reply: Reply, old: &str, new: &str) -> Reply {
    assert!(reply.head.contains(old), "{}", reply.head);
    Reply { head: reply.head.replace(old, new), ..reply }
}

fn status(line: &str) -> Reply {
    Reply { head: format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"), body: Vec::new(), then: Then::KeepOpen }
}

fn content() -> Vec<u8> {
    (0..1_000_003_u32).map(|i| (i * 7 + i / 257) as u8).collect()
}

/// A session that is not patient.
fn session() -> Arc<Session> {
    let patience = Patience { silence: Duration::from_secs(2), retries: 2, ..Patience::default() };
    let session = Session::with_defaults();
    session.give_access(Access { patience, ..Access::default() });
    session
}

fn read_all(server: &Server) -> Result<Vec<u8>> {
    let disk = open(&server.url("/d/disk.raw"), &session())?;
    read_vec(&*disk, 0, usize::try_from(disk.len()).unwrap())
}

#[test]
fn a_file_is_read_once() {
    let server = Server::start(content(), good);
    let session = session();
    let disk = open(&server.url("/d/a%20b.raw?x=canary"), &session).unwrap();
    assert_eq!((disk.len(), disk.hints().latency), (1_000_003, crate::disk::Latency::Remote));
    assert_eq!(read_vec(&*disk, 0, 1_000_003).unwrap(), content());
    assert_eq!(server.sent.load(Ordering::Relaxed), 1_000_003, "the front is not asked for again");
    let requests = server.requests();
    assert_eq!((requests.len(), requests[0].path.as_str()), (2, "/d/a%20b.raw?x=canary"));
    assert!(requests.iter().all(|request| {
        request.headers.iter().any(|header| header.eq_ignore_ascii_case("accept-encoding: identity"))
    }));
    assert!(!disk.describe().1.contains("canary") && !format!("{disk:?}").contains("canary"));
    let again = open(&server.url("/d/a%20b.raw"), &session).unwrap();
    assert_eq!(again.fingerprint().unwrap(), disk.fingerprint().unwrap());
}

/// Each does something wrong; the result is the right bytes or an error with this code.
#[test]
fn hostile_answers_give_the_right_bytes_or_a_clear_stop() {
    type Case = (&'static str, Option<&'static str>, fn(&Request, &[u8]) -> Reply);
    let cases: &[Case] = &[
        ("a connection is cut", None, |request, content| {
            let reply = good(request, content);
            match request.number {
                1 => Reply { body: reply.body[..300_000].to_vec(), then: Then::Close, ..reply },
                _ => reply,
            }
        }),
        ("a connection is cut before the answer", None, |request, content| match request.number {
            1 => Reply { head: String::new(), body: Vec::new(), then: Then::Close },
            _ => good(request, content),
        }),
        ("an answer stalls", None, |request, content| match request.number {
            1 => Reply {
                body: content[FRONT as usize..][..70_000].to_vec(),
                then: Then::Stall,
                ..good(request, content)
            },
            _ => good(request, content),
        }),
        ("no answer comes, ever", Some("http.silent"), |request, content| match request.number {
            0 => good(request, content),
            _ => Reply { head: String::new(), body: Vec::new(), then: Then::Stall },
        }),
        ("another range comes once", None, |request, content| match request.number {
            1 => good(&Request { range: Some((0, 100)), ..request.clone() }, content),
            _ => good(request, content),
        }),
        ("another range comes always", Some("http.range"), |request, content| match request.number {
            0 => good(request, content),
            _ => good(&Request { range: Some((0, 100)), ..request.clone() }, content),
        }),
        ("less comes than was asked for", None, |request, content| {
            let range = request.range.map(|(first, end)| (first, end.min(first + 100_000)));
            good(&Request { range, ..request.clone() }, content)
        }),
        ("all comes for a range", Some("http.range"), |request, content| match request.number {
            0 => good(request, content),
            _ => good(&Request { range: None, ..request.clone() }, content),
        }),
        ("the tag changes", Some("source.changed"), |request, content| match request.number {
            0 => good(request, content),
            _ => replaced(good(request, content), "\"1\"", "\"2\""),
        }),
        ("the length changes", Some("source.changed"), |request, content| match request.number {
            0 => good(request, content),
            _ => replaced(good(request, content), "/1000003", "/1000004"),
        }),
        ("the file is cut short", Some("source.changed"), |request, content| match request.number {
            0 => good(request, content),
            _ => replaced(status("416 Range Not Satisfiable"), "\r\n\r\n", "\r\nContent-Range: bytes */10\r\n\r\n"),
        }),
        ("the length of an answer lies", Some("http.range"), |request, content| match request.number {
            0 => good(request, content),
            _ => {
                Reply { then: Then::Close, ..replaced(good(request, content), "Content-Length: ", "Content-Length: 1") }
            }
        }),
        ("a body is compressed", Some("http.encoding"), |request, content| match request.number {
            0 => good(request, content),
            _ => replaced(good(request, content), "ETag", "Content-Encoding: gzip\r\nETag"),
        }),
        ("the server is busy once", None, |request, content| match request.number {
            0 | 2 => status("503 Service Unavailable"),
            _ => good(request, content),
        }),
        ("the server says when to come back", None, |request, content| match request.number {
            1 => replaced(status("429 Too Many Requests"), "\r\n\r\n", "\r\nRetry-After: 1\r\n\r\n"),
            _ => good(request, content),
        }),
        ("the server is always busy", Some("http.busy"), |_, _| status("503 Service Unavailable")),
        ("the server wants to be left alone", Some("http.busy"), |_, _| {
            replaced(status("503 Service Unavailable"), "\r\n\r\n", "\r\nRetry-After: 86400\r\n\r\n")
        }),
        ("the file is not there", Some("http.missing"), |_, _| status("404 Not Found")),
        ("the file is gone", Some("http.missing"), |request, content| match request.number {
            0 => good(request, content),
            _ => status("410 Gone"),
        }),
        ("nobody is let in", Some("http.denied"), |_, _| status("403 Forbidden")),
        ("a status makes no sense", Some("http.status"), |_, _| status("418 I'm a teapot")),
        ("the file is empty", Some("source.empty"), |_, _| {
            replaced(status("416 Range Not Satisfiable"), "\r\n\r\n", "\r\nContent-Range: bytes */0\r\n\r\n")
        }),
        ("there are no ranges", Some("http.no-ranges"), |request, content| {
            good(&Request { range: None, ..request.clone() }, content)
        }),
        ("the answer is no HTTP", Some("http.connection"), |_, _| Reply {
            head: "SSH-2.0-OpenSSH_9.2\r\n".into(),
            body: Vec::new(),
            then: Then::Close,
        }),
        ("a redirection leads to the metadata of a cloud", Some("http.redirect"), |_, _| {
            replaced(status("302 Found"), "\r\n\r\n", "\r\nLocation: http://169.254.169.254/latest/meta-data\r\n\r\n")
        }),
        ("a redirection leads into the network", Some("http.redirect"), |_, _| {
            replaced(status("307 Temporary Redirect"), "\r\n\r\n", "\r\nLocation: http://10.0.0.1/\r\n\r\n")
        }),
        ("a redirection leads to a file", Some("http.redirect"), |_, _| {
            replaced(status("301 Moved"), "\r\n\r\n", "\r\nLocation: file:///etc/passwd\r\n\r\n")
        }),
        ("redirections go on for ever", Some("http.redirect"), |_, _| {
            replaced(status("302 Found"), "\r\n\r\n", "\r\nLocation: /again\r\n\r\n")
        }),
    ];
    for (what, code, answer) in cases {
        let server = Server::start(content(), answer);
        match (read_all(&server), code) {
            (Ok(bytes), None) => assert!(bytes == content(), "{what}"),
            (Err(error), Some(code)) => {
                assert_eq!(error.code(), *code, "{what}: {error:?}");
                assert!(error.to_string().contains("/d/disk.raw"), "{what}: {error}");
            }
            (result, _) => panic!("{what}: {:?}", result.map(|bytes| bytes.len())),
        }
    }
}

#[test]
fn a_broken_connection_is_resumed_at_the_byte() {
    let server = Server::start(content(), |request, content| {
        let reply = good(request, content);
        let len = reply.body.len().min(100_000);
        Reply { body: reply.body[..len].to_vec(), then: Then::Close, ..reply }
    });
    assert!(read_all(&server).unwrap() == content());
    let (sent, most) = (server.sent.load(Ordering::Relaxed), 1_000_003 + 50_000);
    // What was under way when a connection broke may be lost.
    assert!(sent <= most, "{sent}");
}

#[test]
fn redirections_are_resolved_once_and_take_no_credentials_along() {
    let there = Server::start(content(), good);
    let target = format!("http://{}/real?sig=canary", there.address);
    let here = Server::start(Vec::new(), move |_, _| {
        replaced(status("302 Found"), "\r\n\r\n", &format!("\r\nLocation: {target}\r\n\r\n"))
    });
    let session = Session::with_defaults();
    let secret = |text: &str| Some(Secret::new(text.into()));
    let (user, password, cookie) = (Some("me".into()), secret("canary"), secret("a=canary"));
    session.give_access(Access { user, password, cookie, ..Access::default() });
    let disk = open(&here.url("/x"), &session).unwrap();
    assert_eq!(read_vec(&*disk, 0, 1_000_003).unwrap(), content());
    let has_credentials = |request: &Request| {
        let lower = |header: &String| header.to_ascii_lowercase();
        request
            .headers
            .iter()
            .map(lower)
            .filter(|h| h.starts_with("authorization: basic") || h == "cookie: a=canary")
            .count()
    };
    assert_eq!(here.requests().iter().map(has_credentials).collect::<Vec<_>>(), [2]);
    assert_eq!(there.requests().iter().map(has_credentials).collect::<Vec<_>>(), [0, 0]);
    assert!(!format!("{disk:?}").contains("canary"));
}

#[test]
fn redirections_have_a_bound() {
    for (count, code) in [
        (limits::MAX_REDIRECTS - 1, None),
        (limits::MAX_REDIRECTS, None),
        (limits::MAX_REDIRECTS + 1, Some("http.redirect")),
    ] {
        let server = Server::start(content(), move |request, content| match request.number < count as u64 {
            true => replaced(status("302 Found"), "\r\n\r\n", "\r\nLocation: /more\r\n\r\n"),
            false => good(request, content),
        });
        assert_eq!(open(&server.url("/x"), &session()).err().map(|error| error.code()), code, "{count}");
    }
}

#[test]
fn a_server_without_ranges_is_read_forward() {
    let server =
        Server::start(content(), |request, content| good(&Request { range: None, ..request.clone() }, content));
    let mut stream = stream(&server.url("/d/a?canary"), &session()).unwrap();
    let mut all = vec![0; 1_000_003];
    assert_eq!(crate::disk::read_full(&mut stream, &mut all).unwrap(), all.len());
    assert!(all == content());
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    assert!(!stream.name().contains("canary"));
    let broken = Server::start(content(), |request, content| {
        let reply = good(&Request { range: None, ..request.clone() }, content);
        Reply { body: reply.body[..5000].to_vec(), then: Then::Close, ..reply }
    });
    let mut broken = super::stream(&broken.url("/"), &session()).unwrap();
    let error = crate::disk::read_full(&mut broken, &mut all).unwrap_err();
    assert_eq!((error.code(), error.kind()), ("http.connection", Kind::Unreadable));
}

#[test]
fn an_interrupt_ends_a_wait() {
    let server = Server::start(content(), |request, content| match request.number {
        0 => good(request, content),
        _ => Reply { head: String::new(), body: Vec::new(), then: Then::Stall },
    });
    let session = Session::with_defaults();
    let disk = open(&server.url("/x"), &session).unwrap();
    let other = Arc::clone(&session);
    let canceller = std::thread::spawn(move || other.cancel());
    assert_eq!(disk.read_at(&mut [0; 9], 500_000).unwrap_err().code(), "session.interrupted");
    canceller.join().unwrap();
}

#[test]
fn nobody_there_is_an_error() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = Address::parse(&format!("http://127.0.0.1:{port}/x?canary")).unwrap();
    let error = open(&address, &session()).unwrap_err();
    assert_eq!((error.code(), error.kind().exit_code()), ("http.connection", 3));
    assert!(!error.to_json().to_string().contains("canary"));
}

/// Reads what did not come with the front, in parts.
fn read_in_parts(server: &Server) -> Result<Vec<u8>> {
    let disk = open(&server.url("/d/disk.raw"), &session())?;
    let parts = (0..disk.len()).step_by(100_000);
    let part = |at| read_vec(&*disk, at, usize::try_from((disk.len() - at).min(100_000)).unwrap());
    parts.map(part).collect::<Result<Vec<_>>>().map(|parts| parts.concat())
}

#[test]
fn an_address_that_expired_is_asked_for_once_more() {
    /// Redirects to an address that is good for two requests, and answers by `late` from request 6 on.
    fn server(late: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
        Server::start(content(), move |request, content| match request.path.strip_prefix("/signed?") {
            None => {
                let head =
                    format!("HTTP/1.1 302 Found\r\nLocation: /signed?{}\r\nContent-Length: 0\r\n\r\n", request.number);
                Reply { head, body: Vec::new(), then: Then::KeepOpen }
            }
            Some(began) if request.number > began.parse::<u64>().unwrap() + 2 => status("403 Forbidden"),
            Some(_) if request.number >= 6 => late(request, content),
            Some(_) => good(request, content),
        })
    }
    let honest = server(good);
    assert_eq!(read_in_parts(&honest).unwrap(), content());
    assert!(honest.requests().iter().filter(|request| request.path == "/d/disk.raw").count() > 3);
    let changed = server(|request, content| replaced(good(request, content), "\"1\"", "\"2\""));
    assert_eq!(read_in_parts(&changed).unwrap_err().code(), "source.changed");
    let closed = server(|_, _| status("401 Unauthorized"));
    assert_eq!(read_in_parts(&closed).unwrap_err().code(), "http.denied");
    assert!(closed.requests().len() < 20, "it is not asked for ever");
    let direct = Server::start(content(), |request, content| match request.number {
        0 => good(request, content),
        _ => status("403 Forbidden"),
    });
    assert_eq!(read_in_parts(&direct).unwrap_err().code(), "http.denied");
    assert_eq!(direct.requests().len(), 2, "nobody redirected");
}

#[test]
fn what_is_said_beside_a_file_is_bounded() {
    let of = |len: usize| {
        let server = Server::start(vec![b'x'; len], |request, content| {
            good(&Request { range: None, ..request.clone() }, content)
        });
        let line = Line::plain(&server.url("/x"), &session()).unwrap();
        let ask = |all: bool| {
            let answer = line.answer(len, async |line| {
                let response = line.exchange(line.request(Method::GET, line.url().clone())).await?;
                if all { line.all(response).await } else { Ok(Some(line.beginning(response).await)) }
            });
            answer.unwrap().map(|body| body.len())
        };
        (ask(true), ask(false))
    };
    let (most, beginning) = (limits::MAX_OBJECT_ANSWER, limits::MAX_REFUSAL);
    assert_eq!(of(most - 1), (Some(most - 1), Some(beginning)));
    assert_eq!(of(most), (Some(most), Some(beginning)));
    assert_eq!(of(most + 1), (None, Some(beginning)));
    for len in [beginning - 1, beginning, beginning + 1] {
        assert_eq!(of(len), (Some(len), Some(len.min(beginning))));
    }
}
