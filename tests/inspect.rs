//! `inspect`: little is read for it, and what it prints is what the published schema says.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::{Lab, Run, Variant, tools};

/// Python's jsonschema knows nothing of the types that the schema is made from.
const VALIDATE: &str = "\
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
validator(schema).validate(json.load(open(sys.argv[2])))";

#[test]
fn the_output_is_as_the_schema_says() {
    let lab = Lab::new();
    let schema = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/inspect.schema.json"));
    for (name, variant, flags) in
        [("plain", Variant::Plain, ["--json"].as_slice()), ("deep", Variant::Dirty, &["--json", "--deep"])]
    {
        let found = flags.iter().fold(Run::new(["inspect"]), Run::arg).arg(variant.ova()).success().stdout;
        let output = lab.file(name, found);
        tools::ok("python3", ["-c".as_ref(), VALIDATE.as_ref(), schema, &output]);
    }
}

#[test]
fn little_of_a_disk_is_read() {
    for variant in Variant::ALL {
        let raw = variant.raw();
        let found = Run::new(["inspect", "--json", "--format", "raw"]).arg(&raw).success().json();
        let used = raw.metadata().expect("the fixture").blocks() * 512;
        let read = found["bytes_read"].as_u64().expect("bytes");
        assert!(read > 0 && read * 50 < used, "{variant:?}: {read} of {used}");
        assert_eq!(found["guest"]["facts"]["os"]["osinfo"], "debian12");
    }
}

#[test]
fn people_are_told_each_fact_under_its_name() {
    let text = Run::new(["inspect"]).arg(Variant::Plain.ova()).success().stdout;
    for line in [
        "system        Debian GNU/Linux 12 (bookworm)",
        "host name     vmguest",
        "firmware      bios",
        "mounted       /: ext4 on sda1",
    ] {
        assert!(text.lines().any(|found| found.trim() == line), "{line}\n{text}");
    }
    let xml = Run::new(["inspect", "--xml"]).arg(Variant::Plain.ova()).success().stdout;
    assert!(xml.contains("<distro>debian</distro>") && xml.contains("<name>open-vm-tools</name>"), "{xml}");
}
