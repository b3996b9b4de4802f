//! Any bytes as a registry hive with two logs: opening, walking and exporting it end, and what a walk shows is found by its path.
#![no_main]

use hyper2kvm::hive::{Bytes, Hive, Step, export};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first four bytes say where the logs begin.
    let [a, b, c, d, rest @ ..] = data else { return };
    let cut = |at: [u8; 2]| usize::from(u16::from_le_bytes(at)).min(rest.len());
    let (first, second) = (cut([*a, *b]), cut([*c, *d]));
    let bytes = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        // So that checksums do not have to be guessed.
        if bytes.len() >= 512 {
            let sum = bytes[..508].chunks(4).fold(0, |sum, word| sum ^ u32::from_le_bytes(word.try_into().unwrap()));
            bytes[508..512].copy_from_slice(&sum.to_le_bytes());
        }
        Box::new(bytes) as Box<dyn Bytes>
    };
    let (low, high) = (first.min(second), first.max(second));
    let logs = vec![bytes(&rest[low..high]), bytes(&rest[high..])];
    let Ok(hive) = Hive::open(bytes(&rest[..low]), logs) else { return };
    let Ok(root) = hive.root() else { return };
    let _ = export(&hive, root.clone(), "HKEY_LOCAL_MACHINE", &mut std::io::sink());
    let mut left = 1000;
    let _ = hive.walk(root, &mut |key, _| {
        left -= 1;
        let Ok(key) = key else { return Ok(if left > 0 { Step::In } else { Step::Over }) };
        for value in key.values().into_iter().flatten().flatten().take(100) {
            if let Ok(data) = value.data() {
                assert_eq!(data.bytes.len(), value.size());
                let _ = (data.text(), data.texts(), data.number());
            }
            let _ = key.value(value.name());
        }
        Ok(if left > 0 { Step::In } else { Step::Over })
    });
});
