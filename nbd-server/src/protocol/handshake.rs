//! The negotiation: fixed newstyle, from the greeting to the choice of an export.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use super::constants::*;
use super::session::{Session, Style};
use super::wire::{Fields, append};
use crate::export::Export;
use crate::limits::{
    MAX_CONTEXTS, MAX_MINIMUM_BLOCK, MAX_OPTION, MAX_OPTIONS, MAX_PAYLOAD, MAX_SKIPPED_OPTION, MAX_STRING,
};

const BASE_ALLOCATION: &str = "base:allocation";

/// What a client is told about an export before it uses it. Taken once, so that negotiation never calls the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// At most [`MAX_STRING`] bytes.
    pub name: String,
    /// At most [`MAX_STRING`] bytes; empty for none.
    pub description: String,
    /// In bytes.
    pub size: u64,
    /// A power of two between 1 and 64 KiB.
    pub minimum_block: u32,
    /// A power of two between 512 and 32 MiB.
    pub preferred_block: u32,
    /// Whether several connections see the same bytes.
    pub multi_conn: bool,
    /// Whether writes are allowed.
    pub writable: bool,
    /// Whether trims do something.
    pub trim: bool,
    /// Names of the meta contexts, `base:allocation` first.
    pub contexts: Vec<String>,
}

impl ExportInfo {
    /// Asks an export, and brings its answers within the protocol's limits.
    pub fn of(name: impl Into<String>, export: &dyn Export) -> Self {
        let mut description = export.description();
        description.truncate(description.floor_char_boundary(MAX_STRING));
        let minimum_block = export.minimum_block().clamp(1, MAX_MINIMUM_BLOCK).next_power_of_two();
        let contexts = export.contexts().into_iter().take(MAX_CONTEXTS).map(|context| context.name);
        let contexts = contexts.map(|name| if name.len() > MAX_STRING { String::new() } else { name });
        Self {
            name: name.into(),
            description,
            size: export.size(),
            minimum_block,
            preferred_block: export.preferred_block().clamp(minimum_block.max(512), MAX_PAYLOAD).next_power_of_two(),
            multi_conn: export.is_multi_conn(),
            writable: export.is_writable(),
            trim: export.is_writable() && export.can_trim(),
            contexts: std::iter::once(BASE_ALLOCATION.to_owned()).chain(contexts).collect(),
        }
    }

    fn flags(&self, style: Style, contexts: u64) -> u16 {
        let mut flags = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_CACHE;
        flags |=
            if self.writable { FLAG_SEND_FUA | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO } else { FLAG_READ_ONLY };
        for (has, flag) in [
            (self.trim, FLAG_SEND_TRIM),
            (style >= Style::Structured, FLAG_SEND_DF),
            (self.multi_conn, FLAG_CAN_MULTI_CONN),
            (style == Style::Extended && contexts != 0, FLAG_BLOCK_STATUS_PAYLOAD),
        ] {
            flags |= if has { flag } else { 0 };
        }
        flags
    }

    /// The set of contexts that one of the queries is for, as in [`Session::contexts`].
    fn find_contexts(&self, query: &[u8], setting: bool) -> u64 {
        let mut found = 0;
        for (name, bit) in self.contexts.iter().zip(0_u32..) {
            let listed = !setting && query.ends_with(b":") && name.as_bytes().starts_with(query);
            if !name.is_empty() && (name.as_bytes() == query || listed) {
                found |= 1_u64.checked_shl(bit).unwrap_or(0);
            }
        }
        found
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
    /// Send the output; then the rest of the input, and all that follows, belongs to TLS. Go on with what comes out of it.
    StartTls,
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
    tls: Tls,
    negotiated: Negotiated,
}

/// Whether the negotiation is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It is not, and need not be.
    None,
    /// It must become so before anything else.
    Required,
    /// It is.
    Done,
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

/// What options have agreed on so far. An upgrade to TLS resets it.
#[derive(Clone, Copy, Debug, Default)]
struct Negotiated {
    style: Style,
    /// The export for which meta contexts were chosen, and which.
    contexts: Option<(usize, u64)>,
}

impl Handshake {
    /// Longest input that [`Self::advance`] can ask for at once.
    pub const MAX_INPUT: usize = MAX_OPTION.saturating_add(16);

    /// A handshake, and the greeting to send first.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, tls: Tls) -> (Self, Vec<u8>) {
        let mut greeting = Vec::new();
        let flags = FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES;
        append(&mut greeting, &[&INIT_MAGIC.to_be_bytes(), &IHAVEOPT.to_be_bytes(), &flags.to_be_bytes()]);
        (Self { catalogue, state: State::Flags, options: 0, tls, negotiated: Negotiated::default() }, greeting)
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
        let open = self.tls == Tls::Required;
        if magic != IHAVEOPT || self.options >= MAX_OPTIONS || !(fixed || name_only) || (open && name_only) {
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
            OPT_STARTTLS => return self.start_tls(data, answer),
            _ if self.tls == Tls::Required => answer.error(REP_ERR_TLS_REQD, "this server wants TLS first"),
            OPT_GO | OPT_INFO => return self.go(option, data, answer, admit),
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.meta_context(option, data, answer),
            OPT_LIST | OPT_STRUCTURED_REPLY | OPT_EXTENDED_HEADERS if !data.is_empty() => {
                answer.error(REP_ERR_INVALID, "the option takes no data");
            }
            OPT_LIST => {
                for export in &self.catalogue.0 {
                    answer.server(export);
                }
                answer.ack();
            }
            OPT_STRUCTURED_REPLY if self.negotiated.style == Style::Extended => {
                answer.error(REP_ERR_EXT_HEADER_REQD, "extended headers are agreed on already");
            }
            OPT_STRUCTURED_REPLY => {
                self.negotiated.style = Style::Structured;
                answer.ack();
            }
            OPT_EXTENDED_HEADERS => {
                self.negotiated.style = Style::Extended;
                answer.ack();
            }
            _ => answer.error(REP_ERR_UNSUP, "the option is not supported"),
        }
        Step::Next
    }

    /// `NBD_OPT_STARTTLS`. What was agreed on in the open may have been somebody else's words, so it is forgotten.
    fn start_tls(&mut self, data: &[u8], answer: &mut Answer<'_>) -> Step {
        match self.tls {
            _ if !data.is_empty() => answer.error(REP_ERR_INVALID, "the option takes no data"),
            Tls::None => answer.error(REP_ERR_POLICY, "this server has no TLS"),
            Tls::Done => answer.error(REP_ERR_INVALID, "TLS is in use already"),
            Tls::Required => {
                self.tls = Tls::Done;
                self.negotiated = Negotiated::default();
                answer.ack();
                return Step::StartTls;
            }
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
        let session = self.session(index, export);
        if name.len() > MAX_STRING || session.style == Style::Extended || export.minimum_block > 512 || !admit() {
            return Step::Close;
        }
        let flags = export.flags(session.style, session.contexts);
        append(output, &[&export.size.to_be_bytes(), &flags.to_be_bytes()]);
        if !no_zeroes {
            output.extend_from_slice(&[0; 124]);
        }
        Step::Transmit(session)
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
        if option == OPT_GO && export.minimum_block > 512 && !wanted.contains(&INFO_BLOCK_SIZE) {
            answer.error(REP_ERR_BLOCK_SIZE_REQD, "this export has blocks that are larger than usual");
            return Step::Next;
        }
        if option == OPT_GO && !admit() {
            answer.error(REP_ERR_POLICY, "too many connections");
            return Step::Next;
        }
        let session = self.session(index, export);
        let flags = export.flags(session.style, session.contexts);
        answer.info(INFO_EXPORT, &[&export.size.to_be_bytes(), &flags.to_be_bytes()]);
        if wanted.contains(&INFO_NAME) {
            answer.info(INFO_NAME, &[export.name.as_bytes()]);
        }
        if wanted.contains(&INFO_DESCRIPTION) && !export.description.is_empty() {
            answer.info(INFO_DESCRIPTION, &[export.description.as_bytes()]);
        }
        let sizes = [export.minimum_block, export.preferred_block, MAX_PAYLOAD].map(u32::to_be_bytes);
        answer.info(INFO_BLOCK_SIZE, &[sizes.as_flattened()]);
        answer.ack();
        if option == OPT_GO { Step::Transmit(session) } else { Step::Next }
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`: a 32-bit length, the name, a 32-bit count, and as many
    /// queries, each with a 32-bit length.
    fn meta_context(&mut self, option: u32, data: &[u8], answer: &mut Answer<'_>) {
        self.forget_contexts(option);
        let setting = option == OPT_SET_META_CONTEXT;
        if setting && self.negotiated.style == Style::Simple {
            return answer.error(REP_ERR_INVALID, "structured replies must be negotiated first");
        }
        let mut fields = Fields(data);
        let (Some(name), Some(count)) = (fields.string(), fields.u32()) else {
            return answer.error(REP_ERR_INVALID, "the option is malformed");
        };
        let mut queries = Vec::new();
        for _ in 0..count {
            let Some(query) = fields.string() else {
                return answer.error(REP_ERR_INVALID, "the option is malformed");
            };
            queries.push(query);
        }
        if !fields.is_empty() {
            return answer.error(REP_ERR_INVALID, "the option is malformed");
        }
        let Some((index, export)) = answer.find(&self.catalogue, name) else { return };
        let everything = !setting && count == 0;
        let mut chosen = if everything { u64::MAX } else { 0 };
        for query in queries {
            chosen |= export.find_contexts(query, setting);
        }
        for (number, _) in Session::numbers(chosen) {
            let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            if let Some(name) = at.and_then(|at| export.contexts.get(at)).filter(|name| !name.is_empty()) {
                let id = if setting { number } else { 0 };
                answer.reply(REP_META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
            }
        }
        if setting && chosen != 0 {
            self.negotiated.contexts = Some((index, chosen));
        }
        answer.ack();
    }

    /// Each attempt to set contexts, even a failed one, ends the choice before it.
    const fn forget_contexts(&mut self, option: u32) {
        if option == OPT_SET_META_CONTEXT {
            self.negotiated.contexts = None;
        }
    }

    fn session(&self, index: usize, export: &ExportInfo) -> Session {
        let contexts = self.negotiated.contexts.filter(|(chosen_for, _)| *chosen_for == index);
        Session {
            export: index,
            size: export.size,
            style: self.negotiated.style,
            contexts: contexts.map_or(0, |(_, contexts)| contexts),
            writable: export.writable,
            trim: export.trim,
            minimum_block: export.minimum_block,
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
