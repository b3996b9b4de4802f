//! nginx as a web server for one test: on loopback, with everything of it in the test's own folder.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Lab, tools};

/// A running nginx. It serves the folder `www` of a lab by http and https; below `/whole/` without ranges, below `/login/` to the
/// user `me` with the password of [`PASSWORD`], below `/token/`, `/cookie/` (as `session`)
/// and `/signed/` (as `sig` of the address) to whoever knows it, below `/away/` by a redirection with it, below `/slow/` at 500 kB/s
/// a connection, below `/limited/` at 16 MB/s, below `/busy/` never, below `/now-and-then/` nine times in ten, below `/moved/` by a redirection.
pub(crate) struct Nginx {
    child: Child,
    folder: PathBuf,
    http: u16,
    https: u16,
}

/// The password of the user `me`, which must never be seen anywhere.
pub(crate) const PASSWORD: &str = "canary-7f3a91";

impl Nginx {
    pub(crate) fn start(lab: &Lab) -> Self {
        let [http, https] = free_ports();
        let folder = lab.folder("nginx");
        let path = |name: &str| folder.join(name).display().to_string();
        let www = lab.path("www");
        if !www.exists() {
            lab.folder("www");
        }
        let request = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n[name]\nCN = localhost\n\
                       [extensions]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n";
        fs::write(path("request"), request).expect("writing");
        let keys =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config", &path("request"), "-keyout"];
        let (key, certificate) = (path("key.pem"), path("cert.pem"));
        tools::ok("openssl", keys.into_iter().chain([key.as_str(), "-out", certificate.as_str()]));
        let hash = tools::ok("openssl", ["passwd", "-apr1", PASSWORD]);
        fs::write(path("users"), format!("me:{}\n", hash.trim())).expect("writing");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", path(name)))
            .concat();
        let www = www.display();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {pid}; error_log {errors};
             events {{ worker_connections 256; }}
             http {{
               {temporary}
               log_format bytes '$request_uri $status $body_bytes_sent $server_protocol';
               access_log {log} bytes;
               split_clients $request_id $refused {{ 10% 1; * 0; }}
               server {{
                 listen 127.0.0.1:{http};
                 listen 127.0.0.1:{https} ssl http2;
                 ssl_certificate {certificate}; ssl_certificate_key {key};
                 root {www};
                 location /whole/ {{ alias {www}/; max_ranges 0; }}
                 location /login/ {{ alias {www}/; auth_basic x; auth_basic_user_file {users}; }}
                 location /token/ {{ if ($http_authorization != \"Bearer {PASSWORD}\") {{ return 401; }} alias {www}/; }}
                 location /cookie/ {{ if ($http_cookie != \"session={PASSWORD}\") {{ return 401; }} alias {www}/; }}
                 location /signed/ {{ if ($arg_sig != \"{PASSWORD}\") {{ return 403; }} alias {www}/; }}
                 location /away/ {{ rewrite ^/away/(.*)$ /signed/$1?sig={PASSWORD} redirect; }}
                 location /slow/ {{ alias {www}/; limit_rate 500k; }}
                 location /limited/ {{ alias {www}/; limit_rate 16m; }}
                 location /busy/ {{ return 503; }}
                 location /now-and-then/ {{ if ($refused) {{ return 503; }} alias {www}/; }}
                 location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
               }}
             }}",
            pid = path("pid"),
            errors = path("errors"),
            log = path("log"),
            users = path("users"),
        );
        fs::write(path("nginx.conf"), config).expect("writing");
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-p", &path(""), "-e", &path("errors"), "-c", &path("nginx.conf")]);
        let child = command.stdin(Stdio::null()).spawn().expect("nginx is needed: scripts/install-deps.sh");
        let mut nginx = Self { child, folder, http, https };
        nginx.wait();
        nginx
    }

    /// Waits until it listens.
    fn wait(&mut self) {
        for _ in 0..6000 {
            if TcpStream::connect(("127.0.0.1", self.https)).is_ok() {
                return;
            }
            let ended = self.child.try_wait().expect("waiting");
            assert!(ended.is_none(), "nginx ended: {}", fs::read_to_string(self.file("errors")).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nginx does not listen");
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http)
    }

    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.https)
    }

    /// Its ports of http and https.
    pub(crate) fn ports(&self) -> [u16; 2] {
        [self.http, self.https]
    }

    /// A file of the server's own: `cert.pem`, `log`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Bytes of content that were sent for a path, and by which protocols.
    pub(crate) fn sent(&self, path: &str) -> (u64, Vec<String>) {
        let log = fs::read_to_string(self.file("log")).expect("the log");
        let lines = log.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let lines: Vec<_> = lines.filter(|words| words[0].trim_start_matches('/') == path).collect();
        let mut protocols: Vec<String> = lines.iter().map(|words| words[3].to_owned()).collect();
        protocols.dedup();
        (lines.iter().map(|words| words[2].parse::<u64>().expect("a number")).sum(), protocols)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Ports that nobody has now.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}
