//! What systemd would say of a guest that does not run, from its files: times as it writes them.

pub mod time;
