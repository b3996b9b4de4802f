//! Files of known hosts, configuration files of OpenSSH and packets of SFTP servers, whatever is in them.
#![no_main]

use hyper2kvm::source::ssh_tried::anything;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| anything(data));
