//! Several disks, copied as one: none has its name before all of them are verified.

use super::finish_digests;
use crate::chain::Opened;
use crate::container::digests;
use crate::convert::{Prepared, Progress, Unfinished, Verified, check_space};
use crate::error::Result;

/// Copies and verifies every disk of `prepared`, and then the digests of the packages in `sources`.
///
/// # Errors
/// `output.space` when all together do not fit, and those of the copies and of the digests; what no later run can go on with is removed then.
pub fn convert_all(
    prepared: Vec<Prepared>,
    sources: &[Opened],
    progress: &dyn Progress,
) -> Result<(Vec<Verified>, Vec<digests::Verified>)> {
    check_space(&prepared)?;
    let unfinished: Vec<Unfinished> = prepared.iter().map(Prepared::unfinished).collect();
    let convert = || {
        let mut copied = Vec::new();
        for output in prepared {
            copied.push(output.copy(progress)?);
        }
        let digests: Vec<Vec<digests::Verified>> = sources.iter().map(finish_digests).collect::<Result<_>>()?;
        let verified = copied.into_iter().map(|output| output.verify(progress)).collect::<Result<_>>()?;
        Ok((verified, digests.concat()))
    };
    convert().inspect_err(|error| unfinished.iter().for_each(|output| output.give_up(error)))
}
