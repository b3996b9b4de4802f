#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests compute with small numbers"
)]

use super::*;
use proptest::prelude::*;

const FIXED: u32 = 1;
const NO_ZEROES: u32 = 2;

fn catalogue() -> Arc<Catalogue> {
    let export = |name: &str, description: &str, size| ExportInfo {
        name: name.into(),
        description: description.into(),
        size,
        minimum_block: 1,
        preferred_block: 65536,
        multi_conn: true,
        writable: false,
        trim: false,
        contexts: vec!["base:allocation".into(), "x:one".into(), "x:two".into()],
    };
    let longest = "n".repeat(MAX_STRING);
    Arc::new(Catalogue::new(vec![export("a", "first", 512), export("b", "", 1 << 40), export(&longest, "", 1)]))
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, &[&IHAVEOPT.to_be_bytes(), &option.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data]);
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend(text);
    bytes
}

fn go(code: u32, name: &[u8], infos: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((infos.len() as u16).to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    option(code, &data)
}

fn contexts(code: u32, name: &[u8], queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query.as_bytes())));
    option(code, &data)
}

/// One reply to an option.
#[derive(Debug, PartialEq, Clone)]
struct Reply {
    option: u32,
    kind: u32,
    data: Vec<u8>,
}

/// Takes apart replies, which must be well formed to the last byte.
fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let mut fields = Fields(bytes);
        assert_eq!(fields.u64(), Some(REP_MAGIC));
        let (option, kind) = (fields.u32().unwrap(), fields.u32().unwrap());
        let data = fields.string().expect("all of the reply").to_vec();
        replies.push(Reply { option, kind, data });
        bytes = fields.0;
    }
    replies
}

fn kinds(bytes: &[u8]) -> Vec<u32> {
    replies(bytes).iter().map(|reply| reply.kind).collect()
}

#[derive(Debug, PartialEq)]
enum End {
    Closed,
    Transmit(Session),
    Waiting,
}

/// Feeds `input`, `cut` bytes at a time, to a handshake that has the client's flags already.
fn feed(flags: u32, input: &[u8], cut: usize, admit: bool) -> (Vec<u8>, End, usize) {
    let (mut handshake, greeting) = Handshake::new(catalogue(), Tls::None);
    assert_eq!(greeting.len(), 18);
    let mut output = Vec::new();
    assert!(matches!(handshake.advance(&flags.to_be_bytes(), &mut output, &mut || admit), (4, Step::Next)));
    let (mut start, mut end) = (0, 0);
    loop {
        let (used, step) = handshake.advance(&input[start..end], &mut output, &mut || admit);
        assert!(used <= end - start);
        start += used;
        match step {
            Step::More if end == input.len() => return (output, End::Waiting, start),
            Step::More => end = (end + cut).min(input.len()),
            Step::Next => {}
            Step::StartTls => panic!("there is no TLS here"),
            Step::Transmit(session) => return (output, End::Transmit(session), start),
            Step::Close => return (output, End::Closed, start),
        }
    }
}

fn run(input: &[u8]) -> (Vec<u8>, End) {
    let (output, end, _) = feed(FIXED | NO_ZEROES, input, usize::MAX >> 1, true);
    (output, end)
}

#[test]
fn the_greeting_offers_fixed_newstyle_without_zeroes() {
    let (_, greeting) = Handshake::new(catalogue(), Tls::None);
    assert_eq!(greeting, b"NBDMAGICIHAVEOPT\0\x03");
}

#[test]
fn unknown_client_flags_close() {
    for flags in [4_u32, 0x8000_0003, u32::MAX] {
        let (mut handshake, _) = Handshake::new(catalogue(), Tls::None);
        let (_, step) = handshake.advance(&flags.to_be_bytes(), &mut Vec::new(), &mut || true);
        assert!(matches!(step, Step::Close), "{flags:#x}");
    }
}

#[test]
fn a_client_that_is_not_fixed_has_one_option() {
    assert_eq!(feed(0, &option(OPT_LIST, &[]), 99, true).1, End::Closed);
    let (output, end, _) = feed(0, &option(OPT_EXPORT_NAME, b"b"), 99, true);
    assert_eq!(output.len(), 8 + 2 + 124);
    assert!(matches!(end, End::Transmit(Session { export: 1, style: Style::Simple, .. })));
}

#[test]
fn export_name_answers_or_closes() {
    let (output, end) = run(&option(OPT_EXPORT_NAME, b""));
    assert_eq!(output.len(), 8 + 2);
    assert!(matches!(end, End::Transmit(Session { export: 0, size: 512, .. })));
    assert_eq!(run(&option(OPT_EXPORT_NAME, b"c")), (Vec::new(), End::Closed));
    assert_eq!(run(&option(OPT_EXPORT_NAME, &[b'n'; MAX_STRING + 1])), (Vec::new(), End::Closed));
    assert!(matches!(run(&option(OPT_EXPORT_NAME, &[b'n'; MAX_STRING])).1, End::Transmit(Session { export: 2, .. })));
    assert_eq!(feed(FIXED, &option(OPT_EXPORT_NAME, b"a"), 99, false).1, End::Closed);
}

#[test]
fn a_list_names_all_exports() {
    let (output, end) = run(&option(OPT_LIST, &[]));
    let replies = replies(&output);
    assert_eq!(kinds(&output), [REP_SERVER, REP_SERVER, REP_SERVER, REP_ACK]);
    assert_eq!(replies[0].data, b"\0\0\0\x01afirst");
    assert_eq!(end, End::Waiting);
    assert_eq!(kinds(&run(&option(OPT_LIST, b"x")).0), [REP_ERR_INVALID]);
}

#[test]
fn go_tells_what_is_asked_for() {
    let (output, end) = run(&go(OPT_GO, b"", &[INFO_NAME, INFO_DESCRIPTION, INFO_NAME, 77]));
    let replies = replies(&output);
    let data: Vec<&[u8]> = replies.iter().map(|reply| &reply.data[..]).collect();
    let flags =
        (FLAG_HAS_FLAGS | FLAG_READ_ONLY | FLAG_SEND_FLUSH | FLAG_SEND_CACHE | FLAG_CAN_MULTI_CONN).to_be_bytes();
    assert_eq!(data[0], [&[0, 0, 0, 0, 0, 0, 0, 0, 2, 0][..], &flags].concat());
    assert_eq!(data[1], b"\0\x01a");
    assert_eq!(data[2], b"\0\x02first");
    assert_eq!(data[3], [0, 3, 0, 0, 0, 1, 0, 1, 0, 0, 2, 0, 0, 0]);
    assert_eq!(replies[4], Reply { option: OPT_GO, kind: REP_ACK, data: Vec::new() });
    assert!(matches!(end, End::Transmit(Session { export: 0, .. })));
}

#[test]
fn info_stays_in_the_negotiation() {
    let (output, end) = run(&go(OPT_INFO, b"b", &[]));
    assert_eq!(kinds(&output), [REP_INFO, REP_INFO, REP_ACK]);
    assert_eq!(end, End::Waiting);
}

#[test]
fn malformed_go_is_an_error() {
    let good = go(OPT_GO, b"b", &[INFO_NAME])[16..].to_vec();
    for len in 0..good.len() {
        assert_eq!(kinds(&run(&option(OPT_GO, &good[..len])).0), [REP_ERR_INVALID], "{len}");
    }
    let trailing = [&good[..], &[0]].concat();
    assert_eq!(kinds(&run(&option(OPT_GO, &trailing)).0), [REP_ERR_INVALID]);
    let trailing = [&good[..], &[0, 0]].concat();
    assert_eq!(kinds(&run(&option(OPT_GO, &trailing)).0), [REP_ERR_INVALID]);
    assert_eq!(kinds(&run(&option(OPT_GO, &[0xff; 64])).0), [REP_ERR_INVALID]);
    assert_eq!(kinds(&run(&go(OPT_GO, b"\xff\0", &[])).0), [REP_ERR_UNKNOWN]);
    assert_eq!(kinds(&run(&go(OPT_GO, &[b'n'; MAX_STRING + 1], &[])).0), [REP_ERR_TOO_BIG]);
    assert_eq!(kinds(&run(&go(OPT_INFO, &[b'n'; MAX_STRING], &[])).0), [REP_INFO, REP_INFO, REP_ACK]);
    assert_eq!(kinds(&run(&go(OPT_INFO, &[b'n'; MAX_STRING - 1], &[])).0), [REP_ERR_UNKNOWN]);
}

#[test]
fn a_client_too_many_is_told() {
    let (output, end, _) = feed(FIXED, &go(OPT_GO, b"", &[]), 999, false);
    assert_eq!(kinds(&output), [REP_ERR_POLICY]);
    assert_eq!(end, End::Waiting);
}

#[test]
fn structured_replies_bring_df() {
    let input = [option(OPT_STRUCTURED_REPLY, &[]), go(OPT_GO, b"b", &[])].concat();
    let (output, end) = run(&input);
    let replies = replies(&output);
    assert_eq!(replies[0].kind, REP_ACK);
    assert_eq!(u16::from_be_bytes([replies[1].data[10], replies[1].data[11]]) & FLAG_SEND_DF, FLAG_SEND_DF);
    assert!(matches!(end, End::Transmit(Session { style: Style::Structured, contexts: 0, .. })));
    assert_eq!(kinds(&run(&option(OPT_STRUCTURED_REPLY, b"x")).0), [REP_ERR_INVALID]);
}

#[test]
fn contexts_are_listed_by_query() {
    let listed = |queries: &[&str]| kinds(&run(&contexts(OPT_LIST_META_CONTEXT, b"", queries)).0);
    assert_eq!(listed(&[]), [REP_META_CONTEXT, REP_META_CONTEXT, REP_META_CONTEXT, REP_ACK]);
    assert_eq!(listed(&["x:", "x:one"]), [REP_META_CONTEXT, REP_META_CONTEXT, REP_ACK]);
    assert_eq!(listed(&["x:two", "y:"]), [REP_META_CONTEXT, REP_ACK]);
    assert_eq!(listed(&["base:"]), [REP_META_CONTEXT, REP_ACK]);
    assert_eq!(listed(&["qemu:", "base:allocation", "base:allocation"]), [REP_META_CONTEXT, REP_ACK]);
    assert_eq!(listed(&["qemu:", "base", "base:alloc", ""]), [REP_ACK]);
    assert_eq!(kinds(&run(&contexts(OPT_LIST_META_CONTEXT, b"c", &[])).0), [REP_ERR_UNKNOWN]);
}

#[test]
fn contexts_hold_for_the_export_they_were_set_for() {
    let structured = option(OPT_STRUCTURED_REPLY, &[]);
    let session = |options: &[Vec<u8>]| match run(&[&structured[..], &options.concat()].concat()).1 {
        End::Transmit(session) => session.contexts == 1,
        end => panic!("{end:?}"),
    };
    let set = |name: &[u8], queries: &[&str]| contexts(OPT_SET_META_CONTEXT, name, queries);
    let set_b = set(b"b", &["base:allocation"]);
    assert!(session(&[set_b.clone(), go(OPT_GO, b"b", &[])]));
    assert!(session(&[set(b"", &["base:allocation"]), go(OPT_GO, b"a", &[])]), "the same export by another name");
    assert!(session(&[set_b.clone(), go(OPT_INFO, b"a", &[]), option(OPT_EXPORT_NAME, b"b")]));
    assert!(!session(&[set_b.clone(), go(OPT_GO, b"a", &[])]));
    assert!(!session(&[set_b.clone(), set(b"b", &[]), go(OPT_GO, b"b", &[])]));
    assert!(!session(&[set(b"b", &["base:"]), go(OPT_GO, b"b", &[])]));
    assert!(!session(&[set_b.clone(), set(b"none", &["base:allocation"]), go(OPT_GO, b"b", &[])]));
    assert!(!session(&[set_b.clone(), option(OPT_SET_META_CONTEXT, b"?"), go(OPT_GO, b"b", &[])]));
    assert!(!session(&[set_b, option(OPT_SET_META_CONTEXT, &[0; MAX_OPTION + 1]), go(OPT_GO, b"b", &[])]));
}

#[test]
fn contexts_of_the_export_are_chosen_by_name() {
    let set = |queries: &[&str]| contexts(OPT_SET_META_CONTEXT, b"b", queries);
    let chosen = |queries: &[&str]| {
        let (output, end) = run(&[option(OPT_EXTENDED_HEADERS, &[]), set(queries), go(OPT_GO, b"b", &[])].concat());
        let End::Transmit(session) = end else { panic!("{end:?}") };
        let ids: Vec<Vec<u8>> = replies(&output)
            .iter()
            .filter(|reply| reply.kind == REP_META_CONTEXT)
            .map(|reply| reply.data.clone())
            .collect();
        (session.contexts, ids)
    };
    assert_eq!(chosen(&["x:two"]), (0b100, vec![b"\0\0\0\x03x:two".to_vec()]));
    let both = vec![b"\0\0\0\x01base:allocation".to_vec(), b"\0\0\0\x02x:one".to_vec()];
    assert_eq!(chosen(&["x:one", "base:allocation", "x:one"]), (0b11, both));
    assert_eq!(chosen(&["x:", "x", ""]), (0, vec![]));
}

#[test]
fn extended_headers_take_precedence() {
    let (structured, extended) = (option(OPT_STRUCTURED_REPLY, &[]), option(OPT_EXTENDED_HEADERS, &[]));
    let style = |options: &[&[u8]]| {
        let (output, end) = run(&[&options.concat()[..], &go(OPT_GO, b"b", &[])].concat());
        let End::Transmit(session) = end else { panic!("{end:?}") };
        (session.style, kinds(&output)[..options.len()].to_vec())
    };
    assert_eq!(style(&[&structured, &extended]), (Style::Extended, vec![REP_ACK, REP_ACK]));
    assert_eq!(style(&[&extended, &structured]), (Style::Extended, vec![REP_ACK, REP_ERR_EXT_HEADER_REQD]));
    assert_eq!(run(&[extended, option(OPT_EXPORT_NAME, b"b")].concat()).1, End::Closed);
    assert_eq!(kinds(&run(&option(OPT_EXTENDED_HEADERS, b"x")).0), [REP_ERR_INVALID]);
}

#[test]
fn large_blocks_need_a_client_that_asks() {
    let mut large = catalogue().0[1].clone();
    large.minimum_block = 4096;
    let run = |input: &[u8]| {
        let (mut handshake, _) = Handshake::new(Arc::new(Catalogue::new(vec![large.clone()])), Tls::None);
        let mut output = Vec::new();
        handshake.advance(&FIXED.to_be_bytes(), &mut output, &mut || true);
        let (_, step) = handshake.advance(input, &mut output, &mut || true);
        (kinds(&output), matches!(step, Step::Transmit(_)))
    };
    assert_eq!(run(&go(OPT_GO, b"b", &[INFO_NAME])), (vec![REP_ERR_BLOCK_SIZE_REQD], false));
    assert!(run(&go(OPT_GO, b"b", &[INFO_BLOCK_SIZE])).1);
    assert!(!run(&option(OPT_EXPORT_NAME, b"b")).1);
}

#[test]
fn tls_comes_first_or_never() {
    let open = run(&option(OPT_STARTTLS, &[]));
    assert_eq!((kinds(&open.0), open.1), (vec![REP_ERR_POLICY], End::Waiting));
    let (mut handshake, _) = Handshake::new(catalogue(), Tls::Required);
    let mut say = |input: &[u8]| {
        let mut output = Vec::new();
        let (used, step) = handshake.advance(input, &mut output, &mut || true);
        (used, kinds(&output), step)
    };
    say(&FIXED.to_be_bytes());
    let every = [OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT, OPT_EXTENDED_HEADERS, 99];
    for code in every {
        assert_eq!(say(&option(code, &[])).1, [REP_ERR_TLS_REQD]);
    }
    assert_eq!(say(&option(OPT_STARTTLS, b"x")).1, [REP_ERR_INVALID]);
    let injected = [option(OPT_STARTTLS, &[]), option(OPT_STRUCTURED_REPLY, &[])].concat();
    let (used, answered, step) = say(&injected);
    assert!(matches!(step, Step::StartTls));
    assert_eq!((used, answered), (16, vec![REP_ACK]), "what follows is left for TLS to choke on");
    assert_eq!(say(&option(OPT_STARTTLS, &[])).1, [REP_ERR_INVALID]);
    assert!(matches!(say(&go(OPT_GO, b"b", &[])).2, Step::Transmit(Session { style: Style::Simple, contexts: 0, .. })));
}

#[test]
fn a_name_in_the_open_closes() {
    let (mut handshake, _) = Handshake::new(catalogue(), Tls::Required);
    handshake.advance(&FIXED.to_be_bytes(), &mut Vec::new(), &mut || true);
    let (_, step) = handshake.advance(&option(OPT_EXPORT_NAME, b"b"), &mut Vec::new(), &mut || true);
    assert!(matches!(step, Step::Close));
}

#[test]
fn writable_exports_say_what_they_can() {
    let mut info = catalogue().0[0].clone();
    (info.writable, info.trim) = (true, true);
    let flags = info.flags(Style::Extended, 1);
    assert_eq!(flags & FLAG_READ_ONLY, 0);
    for flag in [FLAG_SEND_FUA, FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES, FLAG_SEND_FAST_ZERO, FLAG_BLOCK_STATUS_PAYLOAD]
    {
        assert_ne!(flags & flag, 0, "{flag:#x}");
    }
    assert_eq!(info.flags(Style::Extended, 0) & FLAG_BLOCK_STATUS_PAYLOAD, 0);
    assert_eq!(info.flags(Style::Structured, 1) & FLAG_BLOCK_STATUS_PAYLOAD, 0);
}

#[test]
fn contexts_need_structured_replies() {
    let set = contexts(OPT_SET_META_CONTEXT, b"b", &["base:allocation"]);
    let (output, end) = run(&[set, option(OPT_STRUCTURED_REPLY, &[]), go(OPT_GO, b"b", &[])].concat());
    assert_eq!(kinds(&output)[0], REP_ERR_INVALID);
    assert!(matches!(end, End::Transmit(Session { style: Style::Structured, contexts: 0, .. })));
}

#[test]
fn malformed_contexts_are_an_error() {
    let good = contexts(OPT_LIST_META_CONTEXT, b"b", &["base:allocation", "x:y"])[16..].to_vec();
    for len in 0..good.len() {
        assert_eq!(kinds(&run(&option(OPT_LIST_META_CONTEXT, &good[..len])).0), [REP_ERR_INVALID], "{len}");
    }
    let trailing = [&good[..], &[0]].concat();
    assert_eq!(kinds(&run(&option(OPT_LIST_META_CONTEXT, &trailing)).0), [REP_ERR_INVALID]);
    let many = [&string(b"b")[..], &u32::MAX.to_be_bytes()].concat();
    assert_eq!(kinds(&run(&option(OPT_LIST_META_CONTEXT, &many)).0), [REP_ERR_INVALID]);
}

#[test]
fn unknown_options_are_unsupported() {
    for code in [0, 4, 12, 99, u32::MAX] {
        let (output, end) = run(&option(code, b"data"));
        assert_eq!(replies(&output)[0].option, code);
        assert_eq!((kinds(&output), end), (vec![REP_ERR_UNSUP], End::Waiting));
    }
}

#[test]
fn abort_is_acknowledged() {
    let (output, end) = run(&[option(OPT_ABORT, &[]), option(OPT_LIST, &[])].concat());
    assert_eq!((kinds(&output), end), (vec![REP_ACK], End::Closed));
}

#[test]
fn long_options_are_skipped_up_to_a_bound() {
    let list = option(OPT_LIST, &[]);
    let sized = |len: usize| run(&[option(99, &vec![0; len]), list.clone()].concat());
    let listed = [REP_SERVER, REP_SERVER, REP_SERVER, REP_ACK];
    for (len, first) in [
        (MAX_OPTION - 1, REP_ERR_UNSUP),
        (MAX_OPTION, REP_ERR_UNSUP),
        (MAX_OPTION + 1, REP_ERR_TOO_BIG),
        (MAX_SKIPPED_OPTION as usize - 1, REP_ERR_TOO_BIG),
        (MAX_SKIPPED_OPTION as usize, REP_ERR_TOO_BIG),
    ] {
        let (output, end) = sized(len);
        assert_eq!(kinds(&output)[0], first, "{len}");
        assert_eq!(kinds(&output)[1..], listed, "{len}");
        assert_eq!(end, End::Waiting);
    }
    let (output, end) = sized(MAX_SKIPPED_OPTION as usize + 1);
    assert_eq!((kinds(&output), end), (vec![REP_ERR_TOO_BIG], End::Closed));
    let mut endless = option(OPT_GO, &[]);
    endless[12..16].fill(0xff);
    let (output, end) = run(&endless);
    assert_eq!((kinds(&output), end), (vec![REP_ERR_TOO_BIG], End::Closed));
}

#[test]
fn the_number_of_options_is_bounded() {
    let most = option(99, &[]).repeat(MAX_OPTIONS as usize);
    assert_eq!(run(&most[16..]).1, End::Waiting);
    assert_eq!(run(&most).1, End::Waiting);
    assert_eq!(run(&[&most[..], &option(99, &[])].concat()).1, End::Closed);
}

#[test]
fn a_wrong_magic_number_closes() {
    let mut bad = option(OPT_LIST, &[]);
    bad[7] ^= 1;
    assert_eq!(run(&bad), (Vec::new(), End::Closed));
    let request = [&REQUEST_MAGIC.to_be_bytes()[..], &[0; 24]].concat();
    assert_eq!(run(&request), (Vec::new(), End::Closed), "a command before negotiation");
}

#[test]
fn descriptions_and_block_sizes_are_brought_within_limits() {
    struct Odd(u32);
    impl Export for Odd {
        fn size(&self) -> u64 {
            0
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<(), crate::Error> {
            Ok(())
        }
        fn preferred_block(&self) -> u32 {
            self.0
        }
        fn description(&self) -> String {
            "é".repeat(MAX_STRING)
        }
    }
    for (given, told) in [(0, 512), (513, 1024), (65536, 65536), (65537, 131_072), (u32::MAX, 32 << 20)] {
        let info = ExportInfo::of("x", &Odd(given));
        assert_eq!(info.preferred_block, told);
        assert_eq!(info.description.len(), MAX_STRING);
    }
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just(&b""[..]), Just(&b"a"[..]), Just(&b"b"[..]), Just(&b"none"[..])];
    let query = prop_oneof![Just("base:allocation"), Just("base:"), Just("qemu:x"), Just("")];
    prop_oneof![
        (0_u32..12, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(code, data)| option(code, &data)),
        (
            prop_oneof![Just(OPT_INFO), Just(OPT_INFO), Just(OPT_GO)],
            name.clone(),
            prop::collection::vec(0_u16..5, 0..4)
        )
            .prop_map(|(code, name, infos)| go(code, name, &infos)),
        (9_u32..11, name, prop::collection::vec(query, 0..4))
            .prop_map(|(code, name, queries)| contexts(code, name, &queries)),
        (8_u32..9).prop_map(|code| option(code, &[])),
        (3_u32..4).prop_map(|code| option(code, &[])),
        (MAX_OPTION..MAX_OPTION + 2).prop_map(|len| option(6, &vec![1; len])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Any options in any order: every one has exactly one final reply, the last one may end the negotiation, and how the
    /// bytes are cut does not matter.
    #[test]
    fn every_option_is_answered(options in prop::collection::vec(any_option(), 0..12), cut in 1_usize..200, admit: bool) {
        let input = options.concat();
        let (output, end, used) = feed(FIXED | NO_ZEROES, &input, usize::MAX >> 1, admit);
        if input.len() < 4000 {
            let (cut_output, cut_end, cut_used) = feed(FIXED | NO_ZEROES, &input, cut, admit);
            prop_assert_eq!((&output, &end, used), (&cut_output, &cut_end, cut_used));
        }
        let old_way = options.iter().any(|option| option[8..12] == OPT_EXPORT_NAME.to_be_bytes());
        if !old_way {
            let finals = kinds(&output).iter().filter(|&&kind| kind == REP_ACK || kind >= REP_ERR_UNSUP).count();
            let mut handled = 0;
            let mut at = 0;
            while at < used {
                at += 16 + u32::from_be_bytes(input[at + 12..at + 16].try_into().unwrap()) as usize;
                handled += 1;
            }
            prop_assert_eq!(finals, handled);
            if end == End::Waiting {
                prop_assert_eq!(used, input.len());
            }
        }
        if let End::Transmit(session) = end {
            prop_assert!(admit && session.export < 3 && (session.style >= Style::Structured || session.contexts == 0));
        }
    }

    #[test]
    fn garbage_never_panics(input in prop::collection::vec(any::<u8>(), 0..200), flags in 0_u32..4) {
        let _ = feed(flags, &input, 50, true);
        let mut input = input;
        input.splice(0..0, IHAVEOPT.to_be_bytes());
        let _ = feed(flags, &input, 50, true);
    }
}
