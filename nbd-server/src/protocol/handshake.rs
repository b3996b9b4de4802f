//! The negotiation: fixed newstyle, from the greeting to the choice of an export.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use super::constants::*;
use super::session::Session;
use super::wire::{Fields, append};
use crate::export::Export;
use crate::limits::{MAX_OPTION, MAX_OPTIONS, MAX_PAYLOAD, MAX_SKIPPED_OPTION, MAX_STRING};

const BASE_ALLOCATION: &[u8] = b"base:allocation";

/// What a client is told about an export before it uses it. Taken once, so that negotiation never calls the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// At most [`MAX_STRING`] bytes.
    pub name: String,
    /// At most [`MAX_STRING`] bytes; empty for none.
    pub description: String,
    /// In bytes.
    pub size: u64,
    /// A power of two between 512 and 32 MiB.
    pub preferred_block: u32,
    /// Whether several connections see the same bytes.
    pub multi_conn: bool,
}

impl ExportInfo {
    /// Asks an export, and brings its answers within the protocol's limits.
    pub fn of(name: impl Into<String>, export: &dyn Export) -> Self {
        let mut description = export.description();
        description.truncate(description.floor_char_boundary(MAX_STRING));
        Self {
            name: name.into(),
            description,
            size: export.size(),
            preferred_block: export.preferred_block().clamp(512, MAX_PAYLOAD).next_power_of_two(),
            multi_conn: export.is_multi_conn(),
        }
    }

    fn flags(&self, structured: bool) -> u16 {
        let mut flags = FLAG_HAS_FLAGS | FLAG_READ_ONLY | FLAG_SEND_FLUSH | FLAG_SEND_CACHE;
        if structured {
            flags |= FLAG_SEND_DF;
        }
        if self.multi_conn {
            flags |= FLAG_CAN_MULTI_CONN;
        }
        flags
    }
}

/// The exports of a server, in the order of their listing. The first is also found under the empty name, unless another
/// export has that name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(Vec<ExportInfo>);

impl Catalogue {
    /// A catalogue of these exports; names should differ.
    #[must_use]
    pub const fn new(exports: Vec<ExportInfo>) -> Self {
        Self(exports)
    }

    fn find(&self, name: &[u8]) -> Option<(usize, &ExportInfo)> {
        let named = self.0.iter().enumerate().find(|(_, export)| export.name.as_bytes() == name);
        if name.is_empty() { named.or_else(|| self.0.iter().enumerate().next()) } else { named }
    }
}

/// What [`Handshake::advance`] came to.
#[derive(Debug)]
pub enum Step {
    /// The input is too short; call again with more of it.
    More,
    /// Send the output, if any, then go on with the rest of the input.
    Next,
    /// Send the output; then the rest of the input belongs to the transmission.
    Transmit(Session),
    /// Send the output, then close the connection.
    Close,
}

/// The server's side of a negotiation.
#[derive(Debug)]
pub struct Handshake {
    catalogue: Arc<Catalogue>,
    state: State,
    options: u32,
    negotiated: Negotiated,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The client's flags come next.
    Flags,
    /// An option comes next.
    Option { fixed: bool, no_zeroes: bool },
    /// The rest of an option that is too big, and then another.
    Skip { left: u32, option: u32, fixed: bool, no_zeroes: bool },
}

/// What options have agreed on so far. An upgrade to TLS would have to reset it.
#[derive(Clone, Copy, Debug, Default)]
struct Negotiated {
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation: Option<usize>,
}

impl Handshake {
    /// Longest input that [`Self::advance`] can ask for at once.
    pub const MAX_INPUT: usize = MAX_OPTION.saturating_add(16);

    /// A handshake, and the greeting to send first.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>) -> (Self, Vec<u8>) {
        let mut greeting = Vec::new();
        let flags = FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES;
        append(&mut greeting, &[&INIT_MAGIC.to_be_bytes(), &IHAVEOPT.to_be_bytes(), &flags.to_be_bytes()]);
        (Self { catalogue, state: State::Flags, options: 0, negotiated: Negotiated::default() }, greeting)
    }

    /// Takes at most one option from the start of `input`, appends the answer to `output`, and returns how much of `input`
    /// was consumed. `admit` is asked when the client is about to enter transmission; `false` turns it away.
    pub fn advance(&mut self, input: &[u8], output: &mut Vec<u8>, admit: &mut dyn FnMut() -> bool) -> (usize, Step) {
        match self.state {
            State::Flags => self.flags(input),
            State::Skip { left, option, fixed, no_zeroes } => {
                let skipped = left.min(u32::try_from(input.len()).unwrap_or(u32::MAX));
                let left = left.saturating_sub(skipped);
                self.state = State::Skip { left, option, fixed, no_zeroes };
                if left == 0 {
                    self.state = State::Option { fixed, no_zeroes };
                    Answer { option, output }.error(REP_ERR_TOO_BIG, "the option is too long");
                }
                let step = if left > 0 && skipped == 0 { Step::More } else { Step::Next };
                (usize::try_from(skipped).unwrap_or(input.len()), step)
            }
            State::Option { fixed, no_zeroes } => self.option(input, output, admit, fixed, no_zeroes),
        }
    }

    fn flags(&mut self, input: &[u8]) -> (usize, Step) {
        const KNOWN: u32 = 3;
        let Some(flags) = Fields(input).u32() else { return (0, Step::More) };
        if flags & !KNOWN != 0 {
            return (4, Step::Close);
        }
        self.state = State::Option { fixed: flags & 1 != 0, no_zeroes: flags & 2 != 0 };
        (4, Step::Next)
    }

    fn option(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        admit: &mut dyn FnMut() -> bool,
        fixed: bool,
        no_zeroes: bool,
    ) -> (usize, Step) {
        let mut fields = Fields(input);
        let (Some(magic), Some(option), Some(len)) = (fields.u64(), fields.u32(), fields.u32()) else {
            return (0, Step::More);
        };
        let name_only = option == OPT_EXPORT_NAME;
        if magic != IHAVEOPT || self.options >= MAX_OPTIONS || !(fixed || name_only) {
            return (input.len(), Step::Close);
        }
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        if size > MAX_OPTION {
            self.options = self.options.saturating_add(1);
            self.forget_contexts(option);
            if name_only || len > MAX_SKIPPED_OPTION {
                if !name_only {
                    Answer { option, output }.error(REP_ERR_TOO_BIG, "the option is too long");
                }
                return (input.len(), Step::Close);
            }
            self.state = State::Skip { left: len, option, fixed, no_zeroes };
            return (16, Step::Next);
        }
        let Some(data) = fields.bytes(size) else { return (0, Step::More) };
        self.options = self.options.saturating_add(1);
        let step = if name_only {
            self.export_name(data, output, admit, no_zeroes)
        } else {
            self.answer(option, data, &mut Answer { option, output }, admit)
        };
        (size.saturating_add(16), step)
    }

    fn answer(&mut self, option: u32, data: &[u8], answer: &mut Answer<'_>, admit: &mut dyn FnMut() -> bool) -> Step {
        match option {
            OPT_ABORT => {
                answer.ack();
                return Step::Close;
            }
            OPT_GO | OPT_INFO => return self.go(option, data, answer, admit),
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.meta_context(option, data, answer),
            OPT_LIST | OPT_STRUCTURED_REPLY if !data.is_empty() => {
                answer.error(REP_ERR_INVALID, "the option takes no data");
            }
            OPT_LIST => {
                for export in &self.catalogue.0 {
                    answer.server(export);
                }
                answer.ack();
            }
            OPT_STRUCTURED_REPLY => {
                self.negotiated.structured = true;
                answer.ack();
            }
            _ => answer.error(REP_ERR_UNSUP, "the option is not supported"),
        }
        Step::Next
    }

    /// `NBD_OPT_EXPORT_NAME`: the old way, which has no error replies.
    fn export_name(
        &mut self,
        name: &[u8],
        output: &mut Vec<u8>,
        admit: &mut dyn FnMut() -> bool,
        no_zeroes: bool,
    ) -> Step {
        let catalogue = Arc::clone(&self.catalogue);
        let Some((index, export)) = catalogue.find(name) else { return Step::Close };
        if name.len() > MAX_STRING || !admit() {
            return Step::Close;
        }
        let flags = export.flags(self.negotiated.structured);
        append(output, &[&export.size.to_be_bytes(), &flags.to_be_bytes()]);
        if !no_zeroes {
            output.extend_from_slice(&[0; 124]);
        }
        Step::Transmit(self.session(index, export))
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`: a 32-bit length, the name, a 16-bit count, and as many 16-bit kinds of detail.
    fn go(&mut self, option: u32, data: &[u8], answer: &mut Answer<'_>, admit: &mut dyn FnMut() -> bool) -> Step {
        let mut fields = Fields(data);
        let (Some(name), Some(count)) = (fields.string(), fields.u16()) else {
            answer.error(REP_ERR_INVALID, "the option is malformed");
            return Step::Next;
        };
        let wanted: Vec<u16> = std::iter::from_fn(|| fields.u16()).collect();
        if wanted.len() != usize::from(count) || !fields.is_empty() {
            answer.error(REP_ERR_INVALID, "the option is malformed");
            return Step::Next;
        }
        let catalogue = Arc::clone(&self.catalogue);
        let Some((index, export)) = answer.find(&catalogue, name) else { return Step::Next };
        if option == OPT_GO && !admit() {
            answer.error(REP_ERR_POLICY, "too many connections");
            return Step::Next;
        }
        let flags = export.flags(self.negotiated.structured);
        answer.info(INFO_EXPORT, &[&export.size.to_be_bytes(), &flags.to_be_bytes()]);
        if wanted.contains(&INFO_NAME) {
            answer.info(INFO_NAME, &[export.name.as_bytes()]);
        }
        if wanted.contains(&INFO_DESCRIPTION) && !export.description.is_empty() {
            answer.info(INFO_DESCRIPTION, &[export.description.as_bytes()]);
        }
        let (minimum, preferred) = (1_u32, export.preferred_block);
        let sizes = [minimum.to_be_bytes(), preferred.to_be_bytes(), MAX_PAYLOAD.to_be_bytes()];
        answer.info(INFO_BLOCK_SIZE, &[sizes.as_flattened()]);
        answer.ack();
        if option == OPT_GO { Step::Transmit(self.session(index, export)) } else { Step::Next }
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`: a 32-bit length, the name, a 32-bit count, and as many
    /// queries, each with a 32-bit length.
    fn meta_context(&mut self, option: u32, data: &[u8], answer: &mut Answer<'_>) {
        self.forget_contexts(option);
        let setting = option == OPT_SET_META_CONTEXT;
        if setting && !self.negotiated.structured {
            return answer.error(REP_ERR_INVALID, "structured replies must be negotiated first");
        }
        let mut fields = Fields(data);
        let (Some(name), Some(count)) = (fields.string(), fields.u32()) else {
            return answer.error(REP_ERR_INVALID, "the option is malformed");
        };
        let mut chosen = !setting && count == 0;
        for _ in 0..count {
            let Some(query) = fields.string() else {
                return answer.error(REP_ERR_INVALID, "the option is malformed");
            };
            chosen |= query == BASE_ALLOCATION || (!setting && query == b"base:");
        }
        if !fields.is_empty() {
            return answer.error(REP_ERR_INVALID, "the option is malformed");
        }
        let Some((index, _)) = answer.find(&self.catalogue, name) else { return };
        if chosen {
            let id = if setting { Session::ALLOCATION_CONTEXT } else { 0 };
            answer.reply(REP_META_CONTEXT, &[&id.to_be_bytes(), BASE_ALLOCATION]);
        }
        if setting && chosen {
            self.negotiated.allocation = Some(index);
        }
        answer.ack();
    }

    /// Each attempt to set contexts, even a failed one, ends the choice before it.
    const fn forget_contexts(&mut self, option: u32) {
        if option == OPT_SET_META_CONTEXT {
            self.negotiated.allocation = None;
        }
    }

    fn session(&self, index: usize, export: &ExportInfo) -> Session {
        Session {
            export: index,
            size: export.size,
            structured: self.negotiated.structured,
            allocation: self.negotiated.allocation == Some(index),
        }
    }
}

/// The replies to one option.
struct Answer<'a> {
    option: u32,
    output: &'a mut Vec<u8>,
}

impl Answer<'_> {
    fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let (option, kind) = (self.option.to_be_bytes(), kind.to_be_bytes());
        append(self.output, &[&REP_MAGIC.to_be_bytes(), &option, &kind, &len.to_be_bytes()]);
        append(self.output, parts);
    }

    fn ack(&mut self) {
        self.reply(REP_ACK, &[]);
    }

    fn error(&mut self, kind: u32, message: &str) {
        self.reply(kind, &[message.as_bytes()]);
    }

    fn info(&mut self, kind: u16, parts: &[&[u8]]) {
        let kind = kind.to_be_bytes();
        let parts: Vec<&[u8]> = std::iter::once(&kind[..]).chain(parts.iter().copied()).collect();
        self.reply(REP_INFO, &parts);
    }

    fn server(&mut self, export: &ExportInfo) {
        let len = u32::try_from(export.name.len()).unwrap_or(u32::MAX);
        self.reply(REP_SERVER, &[&len.to_be_bytes(), export.name.as_bytes(), export.description.as_bytes()]);
    }

    fn find<'c>(&mut self, catalogue: &'c Catalogue, name: &[u8]) -> Option<(usize, &'c ExportInfo)> {
        if name.len() > MAX_STRING {
            self.error(REP_ERR_TOO_BIG, "the export name is too long");
            return None;
        }
        let found = catalogue.find(name);
        if found.is_none() {
            self.error(REP_ERR_UNKNOWN, "no export has this name");
        }
        found
    }
}

#[cfg(test)]
mod tests;
