//! The manifest of an OVF package (DSP0243 2.1.1, section 5.1): a digest for each file.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::error::{Error, Result, escape_bytes};
use crate::limits;

/// A digest function that manifests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, in old packages.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name in a manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    /// Length of a digest in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        match name.to_ascii_uppercase().as_slice() {
            b"SHA1" | b"SHA-1" => Some(Self::Sha1),
            b"SHA256" | b"SHA-256" => Some(Self::Sha256),
            b"SHA512" | b"SHA-512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// The digest that a file should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The file's name in the package.
    pub name: String,
    /// By which function.
    pub algorithm: Algorithm,
    /// The digest.
    pub digest: Vec<u8>,
}

/// A manifest, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// One for each file, in the manifest's order.
    pub digests: Vec<Expected>,
}

impl Manifest {
    /// Parses lines of the form `SHA256(NAME)= HEX`, with blanks anywhere between.
    ///
    /// # Errors
    /// `ova.manifest` for a line that is none or contradicts another, or an unknown digest function.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MAX_MANIFEST {
            return Err(Error::limit("ova.manifest", "the manifest is too large")
                .expected(format!("at most {} bytes", limits::MAX_MANIFEST))
                .found(bytes.len()));
        }
        let mut manifest = Self::default();
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for line in text.split(|b| matches!(b, b'\n' | b'\r')).map(<[u8]>::trim_ascii) {
            if line.is_empty() {
                continue;
            }
            let expected = parse_line(line)?;
            match manifest.find(&expected.name) {
                None => manifest.digests.push(expected),
                Some(known) if *known == expected => {}
                Some(_) => return Err(bad("a file has two different digests", line)),
            }
        }
        Ok(manifest)
    }

    /// The digest for `name`, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Expected> {
        self.digests.iter().find(|expected| expected.name == name)
    }
}

fn parse_line(line: &[u8]) -> Result<Expected> {
    let malformed = || bad("a line is malformed", line).expected("SHA256(NAME)= DIGEST");
    let open = line.iter().position(|b| *b == b'(').ok_or_else(malformed)?;
    let (word, rest) = line.split_at_checked(open).ok_or_else(malformed)?;
    let rest = rest.get(1..).ok_or_else(malformed)?;
    // A name may hold parentheses and equals signs; a digest holds neither.
    let equals = rest.iter().rposition(|b| *b == b'=').ok_or_else(malformed)?;
    let (name, hex) = rest.split_at_checked(equals).ok_or_else(malformed)?;
    let name = name.trim_ascii_end().strip_suffix(b")").ok_or_else(malformed)?.trim_ascii();
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).ok_or_else(malformed)?;
    let algorithm = Algorithm::parse(word.trim_ascii()).ok_or_else(|| {
        Error::unsupported("ova.manifest", "the digest function is not handled")
            .expected("SHA1, SHA256 or SHA512")
            .found(escape_bytes(word))
    })?;
    let digest = unhex(hex.get(1..).unwrap_or_default().trim_ascii())
        .filter(|digest| digest.len() == algorithm.digest_len())
        .ok_or_else(|| bad("a digest is malformed", line))?;
    Ok(Expected { name: name.strip_prefix("./").unwrap_or(name).to_owned(), algorithm, digest })
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let pairs = pairs.iter().map(|[high, low]| {
        let digit = |b: &u8| char::from(*b).to_digit(16);
        u8::try_from(digit(high)?.checked_mul(16)?.checked_add(digit(low)?)?).ok()
    });
    if rest.is_empty() { pairs.collect() } else { None }
}

fn bad(what: &str, line: &[u8]) -> Error {
    Error::corrupt("ova.manifest", what).found(escape_bytes(line))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    const SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text.as_bytes())
    }

    #[test]
    fn lines_parse_with_and_without_blanks() {
        let sha512 = "ab".repeat(64);
        let text = format!(
            "\u{feff}SHA256(a.ovf)= {SHA256}\r\n\r\nSHA1 (b (1)=x.vmdk) ={SHA1}\nsha512(./c)={}\n",
            sha512.to_uppercase()
        );
        let manifest = parse(&text).unwrap();
        let names: Vec<(&str, Algorithm)> = manifest.digests.iter().map(|d| (d.name.as_str(), d.algorithm)).collect();
        assert_eq!(names, [("a.ovf", Algorithm::Sha256), ("b (1)=x.vmdk", Algorithm::Sha1), ("c", Algorithm::Sha512)]);
        assert_eq!(manifest.find("c").unwrap().digest, [0xab; 64]);
        assert_eq!(manifest.find("a.ovf").unwrap().digest[..2], [0xe3, 0xb0]);
        assert!(parse("").unwrap().digests.is_empty());
    }

    #[test]
    fn hostile_manifests_are_refused() {
        let cases = [
            "garbage".to_owned(),
            "SHA256".to_owned(),
            "SHA256(".to_owned(),
            "SHA256()= 00".to_owned(),
            format!("SHA256()= {SHA256}"),
            format!("SHA256(a= {SHA256}"),
            format!("SHA256(a) {SHA256}"),
            format!("SHA256(a)= {SHA1}"),
            format!("SHA256(a)= {SHA256}00"),
            format!("SHA256(a)= {}", SHA256.replace('e', "g")),
            format!("SHA256(a)= {}", &SHA256[1..]),
            format!("MD5(a)= {SHA256}"),
            format!("(a)= {SHA256}"),
            format!("SHA256(a)= {SHA256}\nSHA256(a)= {}", SHA256.replace('e', "f")),
            format!("SHA256(a)= {SHA256}\nSHA1(a)= {SHA1}"),
        ];
        for text in cases {
            assert_eq!(parse(&text).unwrap_err().code(), "ova.manifest", "{text}");
        }
        assert_eq!(Manifest::parse(b"SHA1(\xff)= 00").unwrap_err().code(), "ova.manifest");
        assert_eq!(parse(&format!("SHA256(a)= {SHA256}\n").repeat(2)).unwrap().digests.len(), 1);
    }

    #[test]
    fn the_size_is_bounded() {
        let mut text = vec![b'\n'; limits::MAX_MANIFEST];
        assert!(Manifest::parse(&text).is_ok());
        text.push(b'\n');
        assert_eq!(Manifest::parse(&text).unwrap_err().kind(), crate::Kind::Limit);
    }

    #[test]
    fn every_truncation_parses_or_fails() {
        let text = format!("SHA256(a.ovf)= {SHA256}\nSHA1 (b) = {SHA1}\n");
        for len in 0..text.len() {
            let _ = parse(&text[..len]);
        }
    }
}
