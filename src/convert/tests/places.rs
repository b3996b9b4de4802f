//! Outputs that are not new files: devices with something on them, and pipes.

use std::io::Read;

use super::*;
use crate::convert::output::Surface;

const MIB: usize = 1 << 20;

/// What was on the device before.
const OLD: u8 = 0xa5;

fn varied() -> Arc<Model> {
    Model::new(&[
        (Part::Hole, 70 * KIB),
        (Part::Noise, 3 * MIB),
        (Part::Hole, 3 * MIB),
        (Part::DataZeros, 2 * MIB),
        (Part::Noise, 100 * KIB),
        (Part::Zero, MIB),
        (Part::Text, MIB + 700),
        (Part::Hole, 5000),
    ])
}

fn small() -> Arc<Model> {
    Model::new(&[(Part::Noise, 5 * KIB), (Part::Hole, 9 * KIB), (Part::Noise, 100)])
}

/// A device of `len` bytes that was used before.
fn used(dir: &Path, len: usize) -> PathBuf {
    let path = dir.join("device");
    std::fs::write(&path, vec![OLD; len]).unwrap();
    path
}

fn onto(model: &Arc<Model>, device: Device, options: &Options, session: &Arc<Session>) -> Result<Prepared> {
    prepare_output(Ends::new(checked(model), Arc::new(device)), options, Interval::default(), session, &())
}

fn suiting(surface: Surface) -> impl Iterator<Item = Options> {
    more_options().into_iter().filter(move |options| options.format.suits(surface))
}

#[test]
fn a_device_holds_what_a_file_would() {
    for (model, len) in [(varied(), 40 * MIB), (small(), 3 * MIB), (small(), MIB / 2)] {
        for (index, options) in suiting(Surface::Used).enumerate() {
            let punches = index % 2 == 0;
            let dir = tempfile::tempdir().unwrap();
            let whole =
                bytes_of(&run(checked(&model), &dir.path().join("file"), &options, &session(2), &()).unwrap().path);
            if whole.len() > len {
                continue;
            }
            let path = used(dir.path(), len);
            let session = session(2);
            let prepared = onto(&model, Device::stand_in(&path, punches, &session), &options, &session);
            let prepared = match prepared {
                Err(error) if error.code() == "output.space" && len < MIB => continue,
                prepared => prepared.unwrap(),
            };
            let verified = prepared.copy(&()).unwrap().verify(&()).unwrap();
            let before = bytes_of(&path);
            assert!(before[..MIB.min(len)].iter().all(|byte| *byte == 0), "nothing is found there yet");
            let outcome = verified.seal(&()).unwrap();
            assert_eq!((outcome.verification, outcome.file_len), (Verification::Passed, whole.len() as u64));
            let found = bytes_of(&path);
            assert_eq!(found.len(), len);
            assert!(found[..whole.len()] == whole, "{options:?}");
            let rest = &found[whole.len()..];
            let edge = MIB.min(rest.len());
            assert!(rest[..edge].iter().chain(&rest[rest.len() - edge..]).all(|byte| *byte == 0), "{options:?}");
            let middle = rest.get(edge..rest.len() - edge).unwrap_or_default();
            assert!(whole.len() < MIB || middle.iter().all(|byte| *byte == OLD), "what is behind it is left");
        }
    }
}

#[test]
fn a_device_that_died_has_no_beginning() {
    let model = varied();
    for options in all_options().into_iter().filter(|options| options.format.suits(Surface::Used)) {
        let dir = tempfile::tempdir().unwrap();
        let path = used(dir.path(), 40 * MIB);
        for at in [0, 1, 2] {
            let session = session(1);
            let watch = Watch { updates: Mutex::default(), cancel_at: Some((at, Arc::clone(&session))) };
            let prepared = onto(&model, Device::stand_in(&path, true, &session), &options, &session).unwrap();
            assert_eq!(prepared.copy(&watch).unwrap_err().kind(), Kind::Interrupted);
            let found = bytes_of(&path);
            assert!(found[..MIB].iter().all(|byte| *byte == 0) || found.iter().all(|byte| *byte == OLD));
        }
        let session = session(2);
        let again = onto(&model, Device::stand_in(&path, true, &session), &options, &session).unwrap();
        let again = again.copy(&()).unwrap().verify(&()).unwrap().seal(&()).unwrap();
        assert_eq!((again.verification, again.bytes.resumed), (Verification::Passed, 0));
    }
}

#[test]
fn a_device_that_is_too_small_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::noise(4 * MIB);
    for (options, len) in suiting(Surface::Used).flat_map(|options| [(options.clone(), 4 * MIB - 512), (options, 512)])
    {
        let path = used(dir.path(), len);
        let session = session(1);
        let error = onto(&model, Device::stand_in(&path, true, &session), &options, &session).unwrap_err();
        assert_eq!((error.code(), error.kind()), ("output.space", Kind::NoSpace));
        assert!(bytes_of(&path).iter().all(|byte| *byte == OLD));
    }
    let path = used(dir.path(), 4 * MIB);
    let session = session(1);
    onto(&model, Device::stand_in(&path, true, &session), &raw(), &session).unwrap().copy(&()).unwrap();
}

/// What comes out of the pipe into which `model` is written.
fn piped(model: &Arc<Model>, options: &Options) -> (Result<Outcome>, Vec<u8>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let session = session(2);
    let thread = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let output = Arc::new(Stream::new(writer.into(), "pipe", &session));
    let options = Options { verify: false, ..options.clone() };
    let prepared = prepare_output(Ends::new(checked(model), output), &options, Interval::default(), &session, &());
    let outcome = prepared.and_then(|prepared| prepared.copy(&())?.verify(&())?.seal(&()));
    (outcome, thread.join().unwrap())
}

#[test]
fn a_pipe_gets_every_byte_in_order() {
    for (model, options) in
        [varied(), small()].iter().flat_map(|model| suiting(Surface::Stream).map(move |o| (model, o)))
    {
        let (outcome, found) = piped(model, &options);
        let outcome = outcome.unwrap();
        assert_eq!((outcome.verification, outcome.file_len), (Verification::Off, found.len() as u64));
        let dir = tempfile::tempdir().unwrap();
        let file = run(checked(model), &dir.path().join("pipe"), &options, &session(2), &()).unwrap();
        assert_eq!(outcome.digest, file.digest);
        assert!(found == bytes_of(&file.path), "{options:?}");
    }
}

#[test]
fn formats_that_cannot_go_there_name_those_that_can() {
    for options in more_options() {
        let check = |surface| options.format.check(surface);
        assert!(check(Surface::Empty).is_ok());
        for surface in [Surface::Used, Surface::Stream] {
            if let Err(error) = check(surface) {
                assert_eq!((error.code(), error.kind().exit_code()), ("convert.stream", 2));
                assert!(error.to_string().contains("raw"), "{error}");
            }
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_told_as_such() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let session = session(2);
    let output = Arc::new(Stream::new(writer.into(), "pipe", &session));
    let prepared =
        prepare_output(Ends::new(checked(&varied()), output), &raw(), Interval::default(), &session, &()).unwrap();
    assert_eq!(prepared.copy(&()).unwrap_err().code(), "output.closed");
}

#[test]
fn a_reader_that_sleeps_does_not_hold_up_an_interruption() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let session = session(2);
    let output = Arc::new(Stream::new(writer.into(), "pipe", &session));
    let prepared =
        prepare_output(Ends::new(checked(&varied()), output), &raw(), Interval::default(), &session, &()).unwrap();
    let canceller = Arc::clone(&session);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        canceller.cancel();
    });
    assert_eq!(prepared.copy(&()).unwrap_err().kind(), Kind::Interrupted);
    thread.join().unwrap();
}
