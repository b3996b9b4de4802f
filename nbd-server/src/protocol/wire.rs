//! Reading and appending big-endian fields.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// A view of received bytes that is consumed field by field; `None` means that they ended too early.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 32-bit length and as many bytes.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }
}

/// Appends fields one after the other.
pub(crate) fn append(out: &mut Vec<u8>, fields: &[&[u8]]) {
    for field in fields {
        out.extend_from_slice(field);
    }
}

/// Writes fields one after the other to the start of `area`, which has room for them.
pub(crate) fn fill(mut area: &mut [u8], fields: &[&[u8]]) {
    for field in fields {
        let Some((head, tail)) = area.split_at_mut_checked(field.len()) else { return };
        head.copy_from_slice(field);
        area = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_where_the_bytes_end() {
        let mut fields = Fields(&[0, 0, 0, 2, b'a', b'b', 1, 2, 3]);
        assert_eq!(fields.string(), Some(&b"ab"[..]));
        assert_eq!(fields.u32(), None);
        assert_eq!(fields.u16(), Some(0x0102));
        assert!(!fields.is_empty());
        assert_eq!(fields.bytes(2), None);
        assert_eq!(fields.bytes(1), Some(&[3][..]));
        assert!(fields.is_empty());
        assert_eq!(Fields(&[0xff; 8]).string(), None);
        assert_eq!(Fields(&[0, 0, 0, 0]).string(), Some(&[][..]));
    }
}
