//! What an image remembers of the ranges that were written since some moment.

/// A persistent bitmap of changed ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name, escaped.
    pub name: String,
    /// Bytes that one bit stands for.
    pub granularity: u64,
    /// It was not saved when the image was last written, so what it says is not true.
    pub in_use: bool,
    /// It is kept up to date while the image is written.
    pub auto: bool,
}
