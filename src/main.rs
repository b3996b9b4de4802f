//! The `hyper2kvm` command: parse, run, map the error to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    hyper2kvm::cli::main()
}
