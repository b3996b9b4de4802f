//! What checking an image's metadata finds.

use std::ops::ControlFlow;

/// Something that is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// Where in the file, in bytes.
    pub offset: Option<u64>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Odd, and harmless to every reader.
    Note,
    /// Space that nothing refers to.
    Leak,
    /// Bytes of the disk are lost, ambiguous or wrong.
    Corruption,
}

impl Severity {
    /// The word that `check` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Leak => "leak",
            Self::Corruption => "corruption",
        }
    }
}

impl Finding {
    /// A finding without a place.
    #[must_use]
    pub fn new(severity: Severity, what: impl Into<String>) -> Self {
        Self { severity, what: what.into(), offset: None }
    }

    /// Says where in the file it is.
    #[must_use]
    pub fn offset(self, offset: u64) -> Self {
        Self { offset: Some(offset), ..self }
    }
}

/// What [`super::Layer::check`] calls for each finding.
pub type Report<'a> = dyn FnMut(Finding) -> ControlFlow<()> + 'a;
