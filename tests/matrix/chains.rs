//! Chains of images that qemu-img and qemu-io made, read through the library and compared with what qemu-img reads.

use std::path::{Path, PathBuf};

use super::content::noise;
use super::reading::assert_reads_as;
use crate::support::{Lab, tools};

/// Bytes of the lowest disk.
const LEN: u64 = 6 << 20;

/// A layer of a chain: its format, and the options it is made with.
type Link = (&'static str, &'static str);

#[test]
fn chains_read_as_qemu_img_reads_them() {
    let deep = |link: Link| std::iter::repeat_n(link, 8).collect::<Vec<_>>();
    let chains: Vec<Vec<Link>> = vec![
        vec![("raw", ""), ("qcow2", "")],
        vec![("qcow2", "cluster_size=4k"), ("qcow2", "cluster_size=2M"), ("qcow2", "extended_l2=on")],
        vec![("vmdk", "subformat=monolithicSparse"), ("qcow2", "compat=0.10"), ("qcow2", "")],
        vec![("vmdk", "subformat=monolithicSparse"), ("vmdk", "subformat=monolithicSparse,zeroed_grain=on")],
        vec![("vmdk", "subformat=twoGbMaxExtentSparse"), ("vmdk", "subformat=monolithicSparse")],
        vec![("vmdk", "subformat=monolithicFlat"), ("vmdk", "subformat=monolithicSparse")],
        deep(("qcow2", "")),
        deep(("vmdk", "subformat=monolithicSparse")),
        vec![("vdi", ""), ("qcow2", "")],
        vec![("vpc", "force_size=on"), ("qcow2", "")],
        vec![("vhdx", ""), ("qcow2", "")],
    ];
    for (seed, links) in (1..).zip(chains) {
        let lab = Lab::new();
        let top = chain(&lab, &links, seed);
        let format = links.last().expect("a layer").0;
        let raw = lab.path("expected.raw");
        tools::to_raw(format, &top, &raw);
        let expected = std::fs::read(&raw).expect("the expected bytes");
        assert_reads_as(&top, format, &expected, &format!("{links:?}"));
    }
}

/// A qcow2 that is larger or smaller than the image that it is based on.
#[test]
fn layers_of_other_sizes() {
    for len in [LEN + (1 << 20) + 512, LEN - 512, 512] {
        let lab = Lab::new();
        let below = layer(&lab, ("qcow2", ""), None, LEN, 0);
        write(&below, "qcow2", 3, LEN);
        let top = layer(&lab, ("qcow2", ""), Some(("qcow2", &below)), len, 1);
        let raw = lab.path("expected.raw");
        tools::to_raw("qcow2", &top, &raw);
        assert_reads_as(&top, "qcow2", &std::fs::read(&raw).expect("the expected bytes"), &format!("{len} bytes"));
    }
}

fn chain(lab: &Lab, links: &[Link], seed: u64) -> PathBuf {
    let mut top: Option<(&str, PathBuf)> = None;
    for (index, link) in links.iter().enumerate() {
        let below = top.as_ref().map(|(format, path)| (*format, path.as_path()));
        let path = layer(lab, *link, below, LEN, index);
        write(&path, link.0, seed * 100 + index as u64, LEN);
        top = Some((link.0, path));
    }
    top.expect("a layer").1
}

fn layer(lab: &Lab, (format, options): Link, below: Option<(&str, &Path)>, len: u64, index: usize) -> PathBuf {
    let path = lab.path(&format!("layer{index}.{format}"));
    let mut args: Vec<String> = ["create", "-q", "-f", format].map(Into::into).into();
    if !options.is_empty() {
        args.extend(["-o".into(), options.into()]);
    }
    if let Some((format, below)) = below {
        // By its plain name, which is what a reference may be.
        args.extend([
            "-F".into(),
            format.into(),
            "-b".into(),
            below.file_name().expect("a name").to_string_lossy().into(),
        ]);
    }
    args.push(path.display().to_string());
    // VMDK children take their parent's size.
    if below.is_none() || format != "vmdk" {
        args.push(len.to_string());
    }
    tools::ok("qemu-img", args);
    path
}

/// A few writes, zero writes and discards at random places.
fn write(path: &Path, format: &str, seed: u64, len: u64) {
    let mut args: Vec<String> = ["-f", format].map(Into::into).into();
    for (count, words) in noise(seed, 6 * 16).chunks(16).enumerate() {
        let [a, b] = [0, 8].map(|at| u64::from_le_bytes(words[at..at + 8].try_into().expect("eight bytes")));
        let offset = a % (len / 512) * 512;
        let length = (b % 400 + 1).min((len - offset) / 512) * 512;
        let command = match count {
            2 if format == "qcow2" => format!("write -z {offset} {length}"),
            4 if format == "qcow2" => format!("discard {offset} {length}"),
            _ => format!("write -P {} {offset} {length}", a >> 56),
        };
        args.extend(["-c".into(), command]);
    }
    args.push(path.display().to_string());
    tools::ok("qemu-io", args);
}
