//! Lines from what a guest prints: escape sequences are dropped, and each line is held against the signs once.
//!
//! A guest may print anything, for ever: a line has a bound, an unended escape sequence has one, and every sign counts once.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::signs::Signs;
use crate::error::escape_bytes;
use crate::limits::MAX_CONSOLE_LINE;

/// Parameters of one control sequence; a real one has a dozen bytes. Beyond that it is text.
const MAX_SEQUENCE: usize = 64;

/// A console that is being read.
#[derive(Debug)]
pub(super) struct Console {
    signs: Signs,
    /// Which signs were shown already.
    shown: Vec<bool>,
    line: Vec<u8>,
    state: State,
}

/// Where in an escape sequence (ECMA-48) the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// Behind ESC.
    Escape,
    /// In a control sequence, with the bytes that it has so far.
    Control(usize),
    /// In a control string (a title), with the bytes that it has so far.
    String(usize),
    /// One more byte belongs to the sequence.
    Last,
}

/// A sign that a line showed for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Index of the sign.
    pub(super) sign: usize,
    /// The line, safe to print.
    pub(super) line: String,
}

impl Console {
    pub(super) fn new(signs: Signs) -> Self {
        let shown = vec![false; signs.len()];
        Self { signs, shown, line: Vec::new(), state: State::Text }
    }

    pub(super) fn signs(&self) -> &Signs {
        &self.signs
    }

    /// Takes the next bytes, and gives what the lines that they complete show.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Shown> {
        let mut shown = Vec::new();
        for &byte in bytes {
            if self.step(byte) || self.line.len() >= MAX_CONSOLE_LINE {
                self.judge(&mut shown);
                self.line.clear();
            }
        }
        shown
    }

    /// What the line shows that is not complete: a prompt never is. To be asked once the guest is silent.
    pub(super) fn idle(&mut self) -> Vec<Shown> {
        let mut shown = Vec::new();
        self.judge(&mut shown);
        shown
    }

    fn judge(&mut self, shown: &mut Vec<Shown>) {
        if self.line.is_empty() {
            return;
        }
        for sign in self.signs.shown_by(&self.line) {
            if let Some(seen) = self.shown.get_mut(sign).filter(|seen| !**seen) {
                *seen = true;
                shown.push(Shown { sign, line: escape_bytes(&self.line) });
            }
        }
    }

    /// Takes one byte; true when it ends the line.
    fn step(&mut self, byte: u8) -> bool {
        match self.state {
            State::Text => self.text(byte),
            State::Escape => self.escape(byte),
            State::Control(len) => self.control(byte, len),
            State::String(len) => {
                match byte {
                    0x1b => self.state = State::Escape,
                    0x07 | b'\n' => self.state = State::Text,
                    _ if len >= MAX_CONSOLE_LINE => self.state = State::Text,
                    _ => self.state = State::String(len.saturating_add(1)),
                }
                byte == b'\n'
            }
            State::Last => {
                self.state = State::Text;
                false
            }
        }
    }

    fn text(&mut self, byte: u8) -> bool {
        match byte {
            0x1b => self.state = State::Escape,
            b'\n' | b'\r' | 0x0b | 0x0c => return true,
            0x08 => {
                self.line.pop();
            }
            b'\t' => self.line.push(b' '),
            0x00..=0x1f | 0x7f => {}
            _ => self.line.push(byte),
        }
        false
    }

    fn escape(&mut self, byte: u8) -> bool {
        self.state = match byte {
            0x1b => State::Escape,
            b'[' => State::Control(0),
            b']' | b'P' | b'X' | b'^' | b'_' => State::String(0),
            b' ' | b'#' | b'%' | b'(' | b')' | b'*' | b'+' => State::Last,
            _ => State::Text,
        };
        // Reset, index, next line, reverse index.
        matches!(byte, b'c' | b'D' | b'E' | b'M' | b'\n' | b'\r')
    }

    fn control(&mut self, byte: u8, len: usize) -> bool {
        match byte {
            0x1b => self.state = State::Escape,
            0x20..=0x3f if len < MAX_SEQUENCE => self.state = State::Control(len.saturating_add(1)),
            _ => self.state = State::Text,
        }
        // What moves the cursor to another line begins a new one, and so does what clears the screen.
        matches!(byte, b'A' | b'B' | b'E' | b'F' | b'H' | b'J' | b'd' | b'f' | b'\n' | b'\r')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn console() -> Console {
        Console::new(Signs::new(&[]).unwrap())
    }

    fn names(console: &Console, shown: &[Shown]) -> Vec<String> {
        shown.iter().map(|shown| console.signs().name(shown.sign).unwrap().0.to_owned()).collect()
    }

    /// What a console shows that is fed in pieces of `size` bytes and then silent.
    fn read(bytes: &[u8], size: usize) -> Vec<Shown> {
        let mut console = console();
        let mut shown: Vec<_> = bytes.chunks(size).flat_map(|chunk| console.feed(chunk)).collect();
        shown.extend(console.idle());
        shown
    }

    #[test]
    fn a_line_counts_when_it_is_complete_and_a_prompt_when_it_is_silent() {
        let mut console = console();
        assert!(console.feed(b"BOOTMARK kernel=[6.1] ip=[10").is_empty());
        let shown = console.feed(b".0.2.15]\r\nhost login: ");
        assert_eq!(names(&console, &shown), ["bootmark"]);
        assert_eq!(shown[0].line, "BOOTMARK kernel=[6.1] ip=[10.0.2.15]");
        let shown = console.idle();
        assert_eq!(names(&console, &shown), ["login-prompt"]);
        assert!(console.idle().is_empty() && console.feed(b"\nhost login: \n").is_empty(), "once each");
    }

    #[test]
    fn escape_sequences_are_no_text() {
        let colour =
            b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r\n";
        let title = b"\x1b]0;login: \x07\x1b(B\x1b[mKernel \x1b[1Cpanic\x08c - not syncing\r\n";
        for size in [1, 2, 3, 999] {
            let console = console();
            assert_eq!(names(&console, &read(colour, size)), ["multi-user", "init"]);
            assert_eq!(names(&console, &read(title, size)), ["kernel-panic"]);
        }
    }

    #[test]
    fn cursor_movement_ends_a_line() {
        let screen = b"\x1b[H\x1b[J\x1b[1;1HWelcome to GRUB!\x1b[2;1Hgrub> \x1b[3;1H(initram\x1b[4;1Hfs)";
        let console = console();
        assert_eq!(names(&console, &read(screen, 1)), ["boot-loader", "boot-loader"]);
    }

    #[test]
    fn a_line_has_a_bound_and_the_text_behind_it_counts() {
        for (before, found) in [(MAX_CONSOLE_LINE - 20, true), (MAX_CONSOLE_LINE, true), (MAX_CONSOLE_LINE - 3, false)]
        {
            let mut bytes = vec![b'x'; before];
            bytes.extend_from_slice(b"(initramfs)\n");
            assert_eq!(!read(&bytes, 4096).is_empty(), found, "{before}");
            let mut console = console();
            console.feed(&bytes[..bytes.len() - 1]);
            assert!(console.line.len() < MAX_CONSOLE_LINE);
        }
    }

    #[test]
    fn nothing_hides_behind_an_unended_sequence() {
        for start in ["\x1b[", "\x1b]", "\x1bP"] {
            let bytes = format!("{start}{}\n(initramfs) \n", "0".repeat(10_000));
            assert_eq!(read(bytes.as_bytes(), 100).len(), 1, "{start:?}");
        }
    }

    #[test]
    fn a_line_is_safe_to_print() {
        let shown = read("BOOTMARK \u{202e}x \u{9b}2J \u{ff}\n".as_bytes(), 7);
        assert!(shown[0].line.chars().all(|c| !c.is_control()), "{}", shown[0].line);
        assert!(!shown[0].line.contains('\u{202e}'));
        assert_eq!(read(b"BOOTMARK \xff\xfe\n", 7)[0].line, "BOOTMARK \u{fffd}\u{fffd}");
    }

    proptest! {
        /// How the bytes arrive does not matter, whatever they are.
        #[test]
        fn pieces_do_not_matter(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(b"\x1b[".to_vec()), Just(b"\x1b]".to_vec()), Just(b"\n".to_vec()), Just(b"1;31m".to_vec()),
                    Just(b"(initramfs) ".to_vec()), Just(b"host login: ".to_vec()), Just(b"Kernel panic - ".to_vec()),
                    Just(b"not syncing".to_vec()), proptest::collection::vec(any::<u8>(), 0..20),
                ],
                0..40,
            ),
            size in 1_usize..50,
        ) {
            let bytes = pieces.concat();
            prop_assert_eq!(read(&bytes, size), read(&bytes, usize::MAX));
        }
    }
}
