//! Files in a FUSE mount, for anything that implements one small trait.
