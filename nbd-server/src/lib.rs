//! The NBD protocol: a server for anything that implements one small trait.
