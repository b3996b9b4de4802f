//! Emulators of object stores for one test, and a proxy before them that counts and can answer by itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Lab, Run, fixtures, tools};

/// The account of Azure.
pub(crate) const ACCOUNT: &str = "lab1";

/// Its key, which must never be seen anywhere: `canary-key-of-azure-4711` in base 64.
pub(crate) const ACCOUNT_KEY: &str = "Y2FuYXJ5LWtleS1vZi1henVyZS00NzEx";

/// The bucket or container that everything is in, below `d/`.
pub(crate) const BUCKET: &str = "bucket";

/// A store that runs.
pub(crate) struct Cloud {
    child: Child,
    proxy: Proxy,
    port: u16,
    /// Who may read there, as variables of the environment.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Cloud {
    /// moto, with the files of a folder. Only one user may read it.
    pub(crate) fn s3(lab: &Lab, folder: &Path) -> Self {
        let mut cloud = Self::start(lab, "s3", |port| {
            let mut command = Command::new(python());
            command.args(["-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        });
        let keys = cloud.python(&[], &["s3-fill", &cloud.upstream(), BUCKET, &folder.display().to_string()]);
        let (id, secret) = keys.trim().split_once(' ').expect("two keys");
        cloud.env = vec![
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_ENDPOINT_URL_S3", cloud.proxy.url()),
        ];
        cloud
    }

    /// azurite, with the files of a folder. Only who has the account's key may read it.
    pub(crate) fn azure(lab: &Lab, folder: &Path) -> Self {
        let place = lab.folder("azurite");
        let mut cloud = Self::start(lab, "azure", |port| {
            let mut command = Command::new(clouds().join("nodejs"));
            command.arg(clouds().join("node/node_modules/azurite/dist/src/blob/main.js"));
            command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1"]);
            command.args(["--blobPort", &port.to_string(), "--location"]).arg(&place);
            command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"));
            command
        });
        let folder = folder.display().to_string();
        cloud.python(&[], &["azure-fill", &cloud.upstream(), ACCOUNT, ACCOUNT_KEY, BUCKET, &folder]);
        let endpoint = format!("{}/{ACCOUNT}", cloud.proxy.url());
        let connection = format!("AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint}");
        cloud.env = vec![("AZURE_STORAGE_CONNECTION_STRING", connection)];
        cloud
    }

    /// gcp-storage-emulator, with the files of a folder. It lets everybody in.
    pub(crate) fn google(lab: &Lab, folder: &Path) -> Self {
        let mut cloud = Self::start(lab, "google", |port| {
            let mut command = Command::new(python());
            let main = "from gcp_storage_emulator.__main__ import main; main()";
            command.args(["-c", main, "start", "--host=127.0.0.1", "--in-memory"]);
            command.args([format!("--port={port}"), format!("--default-bucket={BUCKET}")]);
            command
        });
        cloud.python(&[], &["google-fill", &cloud.upstream(), BUCKET, &folder.display().to_string()]);
        cloud.env = vec![("STORAGE_EMULATOR_HOST", cloud.proxy.url())];
        cloud
    }

    fn start(lab: &Lab, name: &str, command: impl FnOnce(u16) -> Command) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
        let log = File::create(lab.path(&format!("{name}.log"))).expect("a log");
        let mut command = command(port);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).current_dir(lab.path(""));
        let child = command.spawn().expect("the emulators are needed: scripts/install-deps.sh");
        let mut cloud = Self { child, proxy: Proxy::start(port), port, env: Vec::new() };
        for _ in 0..12_000 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return cloud;
            }
            assert!(cloud.child.try_wait().expect("waiting").is_none(), "the emulator of {name} ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the emulator of {name} does not listen");
    }

    /// The emulator itself, without the proxy.
    fn upstream(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn python(&self, env: &[(&str, String)], args: &[&str]) -> String {
        let mut command = Command::new(python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/clouds.py")).args(args);
        let output = command.envs(env.iter().map(|(name, value)| (name, value))).output().expect("python");
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{args:?}: {stdout}\n{stderr}");
        stdout
    }

    /// Puts a file into the bucket of S3.
    pub(crate) fn put(&self, key: &str, file: &Path) {
        self.python(&self.env, &["s3-put", &self.upstream(), BUCKET, key, &file.display().to_string()]);
    }

    /// The names of the objects in the bucket of S3, and of uploads that were not ended.
    pub(crate) fn list(&self) -> (Vec<String>, Vec<String>) {
        let json: serde_json::Value =
            serde_json::from_str(&self.python(&self.env, &["s3-list", &self.upstream(), BUCKET])).expect("JSON");
        let names = |list: &str| {
            let names = json[list].as_array().expect("a list").iter();
            names.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        (names("objects"), names("uploads"))
    }

    /// A run that may use it.
    pub(crate) fn run<I>(&self, args: I) -> Run
    where
        I: IntoIterator,
        I::Item: AsRef<std::ffi::OsStr>,
    {
        self.env.iter().fold(Run::new(args), |run, (name, value)| run.env(name, value))
    }

    /// What went through the proxy since this was asked for last.
    pub(crate) fn seen(&self) -> Vec<Exchange> {
        std::mem::take(&mut *lock(&self.proxy.seen))
    }

    /// Has the proxy answer by itself where `answer` gives an answer.
    pub(crate) fn meddle(&self, answer: impl Fn(&Asked) -> Option<String> + Send + Sync + 'static) {
        *lock(&self.proxy.answer) = Arc::new(answer);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `scripts/install-clouds.sh` puts the emulators: beside the fixtures.
fn clouds() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-clouds.sh");
    let cache = fixtures::folder().parent().expect("a folder").display().to_string();
    PathBuf::from(
        tools::ok("env", [&format!("HYPER2KVM_FIXTURES={cache}"), &script.display().to_string(), "--path"]).trim(),
    )
}

fn python() -> PathBuf {
    clouds().join("python/bin/python3")
}

/// A request as the proxy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    /// Everything before the body, in lower case.
    pub(crate) head: String,
    /// How many came before.
    pub(crate) number: usize,
}

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) asked: Asked,
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
}

type Answer = dyn Fn(&Asked) -> Option<String> + Send + Sync;

/// Passes requests on to an emulator, one a connection.
struct Proxy {
    port: u16,
    seen: Arc<Mutex<Vec<Exchange>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
}

impl Proxy {
    fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let answer: Arc<Answer> = Arc::new(|_: &Asked| None);
        let proxy = Self { port, seen: Arc::default(), answer: Arc::new(Mutex::new(answer)) };
        let (seen, answer) = (Arc::clone(&proxy.seen), Arc::clone(&proxy.answer));
        // It ends with the process.
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&lock(&answer)));
                std::thread::spawn(move || {
                    if let Ok(exchange) = pass(&client, upstream, number, &*answer) {
                        lock(&seen).push(exchange);
                    }
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(client: &TcpStream, upstream: u16, number: usize, answer: &Answer) -> std::io::Result<Exchange> {
    let mut reader = BufReader::new(client);
    let head = head(&mut reader)?;
    let lower = head.to_ascii_lowercase();
    let len = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let asked = Asked { line, head: lower, number };
    if let Some(text) = answer(&asked) {
        (&*client).write_all(text.as_bytes())?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        return Ok(Exchange { asked, status, sent: 0 });
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.write_all(head.trim_end_matches("\r\n").as_bytes())?;
    server.write_all(b"\r\nconnection: close\r\n\r\n")?;
    server.write_all(&body)?;
    let mut server = BufReader::new(server);
    let answered = self::head(&mut server)?;
    let status = answered.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (&*client).write_all(answered.as_bytes())?;
    let sent = std::io::copy(&mut server, &mut &*client)?;
    Ok(Exchange { asked, status, sent })
}

fn head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
