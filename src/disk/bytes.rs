//! Fields of a buffer whose length is already known to be enough.

/// The byte at `at`; 0 past the end.
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The two bytes at `at`; 0 past the end.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

/// The four bytes at `at`; 0 past the end.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// The eight bytes at `at`; 0 past the end.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The two bytes at `at`, big-endian; 0 past the end.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// The four bytes at `at`, big-endian; 0 past the end.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// The eight bytes at `at`, big-endian; 0 past the end.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// The `N` bytes at `at`; zeros when they are not all there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// Whether `what` stands at `at`.
pub(crate) fn is_at(bytes: &[u8], at: usize, what: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(what))
}

/// Stores `what` at `at`; nothing when it does not fit.
pub(crate) fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(to) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..what.len())) {
        to.copy_from_slice(what);
    }
}

/// Stores two bytes at `at`.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, &value.to_le_bytes());
}

/// Stores four bytes at `at`.
pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

/// Stores four bytes at `at`, big-endian.
pub(crate) fn put_be32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_be_bytes());
}

/// Stores eight bytes at `at`, big-endian.
pub(crate) fn put_be64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_be_bytes());
}

/// A length or index in memory. What does not fit there becomes one that is past every buffer.
pub(crate) fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length in memory as a length on disk.
pub(crate) fn long(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Text up to the first NUL, if there is any.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end)?).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

/// A UUID in the byte order of Unix, if it is not all zeros.
pub(crate) fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let uuid = uuid::Uuid::from_bytes(array(bytes, at));
    (!uuid.is_nil()).then(|| uuid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_past_the_end_are_zero() {
        assert_eq!(le16(&[1, 2, 3], 1), 0x0302);
        assert_eq!(le32(&[1, 2, 3], 0), 0);
        assert_eq!(le64(&[1; 8], usize::MAX), 0);
        assert!(!is_at(&[1], 5, &[]));
        let mut bytes = [0; 3];
        put16(&mut bytes, 1, 0x0201);
        put32(&mut bytes, 0, u32::MAX);
        assert_eq!(bytes, [0, 1, 2]);
    }
}
