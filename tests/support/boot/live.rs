//! A machine that is switched on, and how a boot of it ended.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Emulation on a busy machine takes minutes; a guest that is not there after so long will not come.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A machine that runs. It is switched off when dropped, as by pulling its plug: what the guest had not written yet is lost.
pub(crate) struct Live {
    qemu: Child,
    serial: mpsc::Receiver<Vec<u8>>,
    console: Vec<u8>,
    /// How much of that it had said when a line was typed last.
    answered: usize,
}

impl Live {
    /// The machine of this QEMU, whose serial port is its standard input and output.
    pub(super) fn over(mut qemu: Child) -> Self {
        let mut port = qemu.stdout.take().expect("a serial port");
        let (sender, serial) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = port.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { qemu, serial, console: Vec::new(), answered: 0 }
    }

    /// Waits until it is up, has given up, or nothing more can be expected, and switches it off.
    pub(super) fn ends(mut self) -> Boot {
        let outcome = self.wait(Outcome::find).unwrap_or(Outcome::Silent);
        Boot { outcome, console: self.console() }
    }

    /// Waits until it is up; what it says of itself.
    pub(crate) fn up(&mut self) -> BTreeMap<String, String> {
        let outcome = self.wait(Outcome::find).unwrap_or(Outcome::Silent);
        Boot { outcome, console: self.console() }.up()
    }

    /// Waits until it has said this since the last line was typed.
    pub(crate) fn said(&mut self, text: &str) {
        let said = self.wait(|console| console.contains(text).then_some(()));
        said.unwrap_or_else(|| panic!("{text:?} was not said in:\n{}", tail(&self.console())));
    }

    /// Types a line, with the enter key at its end.
    pub(crate) fn types(&mut self, line: &str) {
        self.answered = self.console.len();
        let port = self.qemu.stdin.as_mut().expect("a serial port");
        port.write_all(format!("{line}\r").as_bytes()).expect("the serial port");
    }

    /// All that it has said until now.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&self.console).into_owned()
    }

    /// SIGKILL, and its end; what it had said.
    pub(crate) fn kill(mut self) -> String {
        self.stop();
        while let Ok(bytes) = self.serial.recv() {
            self.console.extend(bytes);
        }
        self.console()
    }

    fn wait<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = find(&String::from_utf8_lossy(&self.console[self.answered..])) {
                return Some(found);
            }
            self.console.extend(self.serial.recv_timeout(PATIENCE.saturating_sub(start.elapsed())).ok()?);
            // All that came meanwhile is looked at once: on a busy machine that is much.
            self.console.extend(self.serial.try_iter().flatten());
        }
    }

    fn stop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a boot ended.
pub(crate) struct Boot {
    outcome: Outcome,
    console: String,
}

enum Outcome {
    /// The marker line's `key=[value]` pairs.
    Up(BTreeMap<String, String>),
    /// What the guest said when it gave up.
    Dead(&'static str),
    /// It said nothing more.
    Silent,
}

impl Outcome {
    fn find(console: &str) -> Option<Self> {
        const DEATHS: [&str; 8] = [
            "Gave up waiting for root",
            "Kernel panic",
            "You are in emergency mode",
            "Entering emergency mode",
            // dracut without systemd.
            "Could not boot.",
            "No bootable device",
            "Shell> ",
            // Newer images wait for a disk without end.
            ".device/start running (2min",
        ];
        if let Some(line) =
            console.split_inclusive('\n').find(|line| line.contains("BOOTMARK ") && line.ends_with('\n'))
        {
            return Some(Self::Up(parse_mark(line)));
        }
        DEATHS.into_iter().find(|death| console.contains(death)).map(Self::Dead)
    }
}

/// A value may itself have brackets, as that of a btrfs root.
fn parse_mark(line: &str) -> BTreeMap<String, String> {
    let parts: Vec<&str> = line.split("=[").collect();
    let pair = |pair: &[&str]| {
        let name = pair[0].rsplit(' ').next().unwrap_or_default();
        let (value, _) = pair[1].rsplit_once(']').unwrap_or((pair[1], ""));
        (name.to_owned(), value.to_owned())
    };
    parts.windows(2).map(pair).collect()
}

impl Boot {
    /// It came up; what it says of itself.
    pub(crate) fn up(self) -> BTreeMap<String, String> {
        match self.outcome {
            Outcome::Up(facts) => facts,
            Outcome::Dead(death) => panic!("the guest died ({death}):\n{}", tail(&self.console)),
            Outcome::Silent => panic!("the guest did not come up:\n{}", tail(&self.console)),
        }
    }

    /// It gave up; what it said.
    pub(crate) fn dead(self) -> &'static str {
        match self.outcome {
            Outcome::Dead(death) => death,
            Outcome::Up(facts) => panic!("the guest came up: {facts:?}"),
            Outcome::Silent => panic!("the guest neither came up nor gave up:\n{}", tail(&self.console)),
        }
    }
}

fn tail(console: &str) -> &str {
    let start = console.char_indices().rev().nth(3000).map_or(0, |(index, _)| index);
    &console[start..]
}
