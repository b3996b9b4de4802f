//! Calendar expressions and time zones: what is understood is understood the same in its normal form, and times only go forward.
#![no_main]

use std::sync::Arc;

use hyper2kvm::fs::{MemoryFs, Tree};
use hyper2kvm::inspect::systemd::calendar::Calendar;
use hyper2kvm::inspect::systemd::time;
use hyper2kvm::inspect::systemd::zones::Zones;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (text, zone) = data.split_at(data.iter().position(|byte| *byte == 0xff).unwrap_or(data.len()));
    let fs = MemoryFs::default();
    for path in ["/etc/localtime", "/usr/share/zoneinfo/A/B"] {
        fs.add_file(path, zone.get(1..).unwrap_or_default()).expect("room");
    }
    let tree = Tree::new(Arc::new(fs));
    let base = Timestamp::from_second(1_790_000_000).expect("a time");
    let zones = Zones::read(&tree, base).expect("memory can be read");
    let text = String::from_utf8_lossy(text);
    if let Some(micros) = time::span(&text) {
        assert_eq!(time::span(&time::span_text(micros)), Some(micros), "{text}");
    }
    let Ok(calendar) = Calendar::parse(&text, &zones) else { return };
    let normal = calendar.to_string();
    let again = Calendar::parse(&normal, &zones).expect("a normal form");
    assert_eq!(again.to_string(), normal);
    let mut moment = base;
    for _ in 0..8 {
        let next = calendar.next(moment, &zones.local().rules);
        assert_eq!(next, again.next(moment, &zones.local().rules));
        let Some(next) = next else { break };
        assert!(next > moment);
        moment = next;
    }
});
