//! The `hyper2kvm` command.

fn main() {}
