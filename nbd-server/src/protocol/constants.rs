//! The numbers of the specification, under its names without the prefix `NBD_`.

/// First word of the server's greeting.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting, and first of every option.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// First word of every reply to an option.
pub const REP_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// First word of a request with an extended header.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// First word of a reply chunk with an extended header.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;
/// What the old style of negotiation has in place of [`IHAVEOPT`].
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

/// Handshake flag, both ways: fixed newstyle.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag, both ways: no 124 zeros after `OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 2;

/// Option: enter transmission with the export of this name; an error closes the connection.
pub const OPT_EXPORT_NAME: u32 = 1;
/// Option: end the negotiation.
pub const OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const OPT_LIST: u32 = 3;
/// Option: upgrade to TLS.
pub const OPT_STARTTLS: u32 = 5;
/// Option: details of an export.
pub const OPT_INFO: u32 = 6;
/// Option: details of an export, and enter transmission with it.
pub const OPT_GO: u32 = 7;
/// Option: use structured replies.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: list the meta contexts of an export.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: choose meta contexts of an export.
pub const OPT_SET_META_CONTEXT: u32 = 10;
/// Option: use extended headers, and with them structured replies.
pub const OPT_EXTENDED_HEADERS: u32 = 11;

/// Option reply: done.
pub const REP_ACK: u32 = 1;
/// Option reply: the name and description of an export.
pub const REP_SERVER: u32 = 2;
/// Option reply: one detail of an export.
pub const REP_INFO: u32 = 3;
/// Option reply: a meta context.
pub const REP_META_CONTEXT: u32 = 4;
/// Option reply: unknown option.
pub const REP_ERR_UNSUP: u32 = 0x8000_0001;
/// Option reply: forbidden.
pub const REP_ERR_POLICY: u32 = 0x8000_0002;
/// Option reply: malformed, or out of order.
pub const REP_ERR_INVALID: u32 = 0x8000_0003;
/// Option reply: not on this platform.
pub const REP_ERR_PLATFORM: u32 = 0x8000_0004;
/// Option reply: only after TLS.
pub const REP_ERR_TLS_REQD: u32 = 0x8000_0005;
/// Option reply: no such export.
pub const REP_ERR_UNKNOWN: u32 = 0x8000_0006;
/// Option reply: the server is shutting down.
pub const REP_ERR_SHUTDOWN: u32 = 0x8000_0007;
/// Option reply: only for clients that keep to the block sizes, which is to say that ask for them.
pub const REP_ERR_BLOCK_SIZE_REQD: u32 = 0x8000_0008;
/// Option reply: too large to look at.
pub const REP_ERR_TOO_BIG: u32 = 0x8000_0009;
/// Option reply: extended headers are needed, or agreed on already.
pub const REP_ERR_EXT_HEADER_REQD: u32 = 0x8000_000a;

/// Detail: size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Detail: the canonical name.
pub const INFO_NAME: u16 = 1;
/// Detail: the description.
pub const INFO_DESCRIPTION: u16 = 2;
/// Detail: minimum, preferred and maximum block size.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flag: always set.
pub const FLAG_HAS_FLAGS: u16 = 1;
/// Transmission flag: writes are refused.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `CMD_FLUSH` is understood.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `CMD_FLAG_FUA` is understood.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: a spinning disk.
pub const FLAG_ROTATIONAL: u16 = 1 << 4;
/// Transmission flag: `CMD_TRIM` is understood.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `CMD_WRITE_ZEROES` is understood.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `CMD_FLAG_DF` is understood.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: several connections see the same bytes.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: `CMD_CACHE` is understood.
pub const FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `CMD_FLAG_FAST_ZERO` is understood.
pub const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;
/// Transmission flag: block status requests may name the contexts that they want.
pub const FLAG_BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;

/// Command: read.
pub const CMD_READ: u16 = 0;
/// Command: write; without extended headers the only one with a payload.
pub const CMD_WRITE: u16 = 1;
/// Command: disconnect; the only one without a reply.
pub const CMD_DISC: u16 = 2;
/// Command: flush.
pub const CMD_FLUSH: u16 = 3;
/// Command: trim.
pub const CMD_TRIM: u16 = 4;
/// Command: read ahead.
pub const CMD_CACHE: u16 = 5;
/// Command: write zeros.
pub const CMD_WRITE_ZEROES: u16 = 6;
/// Command: block status.
pub const CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: reply once the effect is on stable storage.
pub const CMD_FLAG_FUA: u16 = 1;
/// Command flag: zeros shall take up space.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag: do not fragment the answer to a read.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag: one extent is enough.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag: fail at once if zeroing is no faster than writing zeros.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;
/// Command flag, with extended headers: the length is that of a payload.
pub const CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// Chunk flag: the last of its reply.
pub const REPLY_FLAG_DONE: u16 = 1;
/// Chunk: nothing.
pub const REPLY_TYPE_NONE: u16 = 0;
/// Chunk: an offset and data.
pub const REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: an offset and a number of zeros.
pub const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: a context and its extents.
pub const REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: a context, the number of its extents, and the extents with 64-bit lengths and flags.
pub const REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
/// Bit of the types of all chunks that tell of an error.
pub const REPLY_TYPE_ERROR_BIT: u16 = 1 << 15;
/// Chunk: an error.
pub const REPLY_TYPE_ERROR: u16 = 0x8001;
/// Chunk: an error and the offset where it happened.
pub const REPLY_TYPE_ERROR_OFFSET: u16 = 0x8002;
