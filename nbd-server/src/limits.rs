//! Every bound of this crate: its name, its value and the reason for it.

use std::time::Duration;

/// Longest string of the protocol in bytes (export name, description, meta context, error message), as the
/// specification has it.
pub const MAX_STRING: usize = 4096;

/// Longest option that is looked at. Room for a name of [`MAX_STRING`] and a dozen of the longest queries; real
/// clients send less than 5 KiB.
pub const MAX_OPTION: usize = 64 << 10;

/// Longest option that is skipped and answered with "too big"; the connection ends at a longer one, which can only be
/// an attempt to keep the server busy.
pub const MAX_SKIPPED_OPTION: u32 = 1 << 20;

/// Options in one handshake. A client that asks for the details of each of [`MAX_EXPORTS`] exports needs two an export.
pub const MAX_OPTIONS: u32 = 4096;

/// Exports of one server, which bounds the answer to a listing (4 MiB with names of 4 KiB).
pub const MAX_EXPORTS: usize = 1024;

/// Largest export: offsets are signed 64-bit numbers in every client.
pub const MAX_SIZE: u64 = i64::MAX.cast_unsigned();

/// Largest read, and largest payload of a write that is skipped to refuse it: what the specification says that every
/// server should take.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Extents of one context in an answer to a block status request, far below the 2^20 that the specification allows: the
/// answer then fits the buffer that each thread has anyway, with 64-bit extents too, and the client asks on from where it ended.
pub const MAX_EXTENTS: u32 = 4000;

/// Meta contexts of an export besides `base:allocation`: as many as fit a set of 64 bits. qemu's dirty bitmaps, which are the
/// most numerous ones in use, are a handful.
pub const MAX_CONTEXTS: usize = 63;

/// Longest run of zeros that is written out for an export that cannot zero by itself: what a request without extended headers
/// can ask for. It keeps a client from occupying a thread for days.
pub const MAX_WRITTEN_ZEROS: u64 = 1 << 32;

/// Payload bytes of writes that a server holds at once. A write that finds no room is taken from the socket in pieces of
/// [`SMALL_BUFFER`], so a client that stalls in the middle of one holds up nobody.
pub const MAX_PAYLOAD_BYTES: usize = 128 << 20;

/// Largest minimum block size of an export, as the specification has it.
pub const MAX_MINIMUM_BLOCK: u32 = 64 << 10;

/// Shortest read for which holes are looked up. Below it, sending the zeros costs less than asking where they are.
pub const MIN_SPARSE_READ: u32 = 16 << 10;

/// Shortest run of zeros that is sent as a hole of its own: a page.
pub const MIN_HOLE: u64 = 4096;

/// Runs of data and zeros told apart in one read; what follows is sent as data. Bounds the scratch list.
pub const MAX_RUNS: usize = 1024;

/// Capacity of the reply buffer of a thread. Large enough for [`MAX_EXTENTS`] and for a batch of fifteen 4 KiB replies,
/// small enough to have one per thread.
pub const SMALL_BUFFER: usize = 64 << 10;

/// Capacity of a shared buffer for a large read. One reply chunk fits, and with it the largest request that qemu-img
/// (2 MiB) and the kernel's client (1.25 MiB) usually make.
pub const LARGE_BUFFER: usize = (2 << 20) + 64;

/// Shared buffers of one server: 64 MiB. A read that finds none left is answered in pieces of [`SMALL_BUFFER`].
pub const MAX_LARGE_BUFFERS: usize = 32;

/// Requests of one connection that are served at once.
pub const MAX_WORKERS: usize = 16;

/// Requests of one connection that wait for a worker. No further ones are read from the socket meanwhile.
pub const MAX_QUEUED: usize = 16;

/// Connections past their handshake, by default. One holds a thread, and up to [`MAX_WORKERS`] more while requests pile up.
pub const MAX_CONNECTIONS: usize = 64;

/// Sockets in their handshake. When one more arrives, the one that has idled longest is dropped, so that idle sockets cannot
/// keep a client out, nor use up the descriptors.
pub const MAX_HANDSHAKES: usize = 256;

/// Time for a whole handshake, by default.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Time for requests in flight to finish when the server shuts down; then sockets are closed under them.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Longest reply to an option that a client takes: a name and a description of [`MAX_STRING`] each, and room.
pub const MAX_OPTION_REPLY: usize = 16 << 10;

/// Replies to one option that a client takes, except in listings: a dozen kinds of detail exist.
pub const MAX_OPTION_REPLIES: usize = 256;

/// Exports that a client lists: 64 MiB of names and descriptions of the largest size.
pub const MAX_LISTED: usize = 8192;

/// Chunks of one reply that a client takes: a read of 32 MiB in pieces of 512 bytes.
pub const MAX_CHUNKS: u32 = 64 << 10;

/// Extents of one context that a client takes in one reply: the most that the specification lets a server send.
pub const MAX_STATUS_EXTENTS: usize = 1 << 20;

/// Requests of a client that wait for replies of one connection; callers beyond it wait. nbdcopy and the kernel have 64 and 128.
pub const MAX_IN_FLIGHT: usize = 64;

/// Bytes a second that a server must give on the whole, beside the silence that it may keep: below it a request ends, so that a
/// byte now and then does not keep it for ever.
pub const SLOWEST: u64 = 16 << 10;

/// Longest time that a flush may take, in multiples of that of other requests: a server may have gigabytes to write first.
pub const FLUSH_PATIENCE: u32 = 20;

/// How long a blocked client waits before it looks whether it is to give up.
pub const CLIENT_NAP: Duration = Duration::from_millis(200);

/// Connections of a client to an export that allows several. nbdcopy's four, and room for more processors.
pub const MAX_CLIENT_CONNECTIONS: usize = 16;
