//! Dates and times of directory entries. They are local times of an unknown place; the kernel and this driver take them for
//! universal time unless told otherwise.

use crate::fs::Timestamp;
use crate::fs::calendar::Moment;

/// The first and last moment that can be written: the years 1980 to 2107.
const FIRST: i64 = 315_532_800;
const LAST: i64 = 4_354_819_198;

/// The moment of a date, a time and hundredths of seconds (0 to 199). Fields that are no date are taken for the nearest.
pub(super) fn read(date: u16, time: u16, hundredths: u8) -> Timestamp {
    let field = |value: u16, shift: u32, mask: u16| i64::from(value >> shift & mask);
    let moment = Moment {
        year: field(date, 9, 0x7f).saturating_add(1980),
        month: field(date, 5, 0xf).clamp(1, 12),
        day: field(date, 0, 0x1f).max(1),
        hour: field(time, 11, 0x1f),
        minute: field(time, 5, 0x3f),
        second: field(time, 0, 0x1f).saturating_mul(2),
    };
    let hundredths = hundredths.min(199);
    Timestamp {
        seconds: moment.seconds().saturating_add(i64::from(hundredths / 100)),
        nanoseconds: u32::from(hundredths % 100).saturating_mul(10_000_000),
    }
}

/// The date, the time and the hundredths of a moment, or of the nearest that can be written.
pub(super) fn write(time: Timestamp) -> (u16, u16, u8) {
    let moment = Moment::from_seconds(time.seconds.clamp(FIRST, LAST));
    let field = |value: i64, shift: u32| u16::try_from(value).unwrap_or(0).wrapping_shl(shift);
    let hundredths = field(moment.second % 2, 0).saturating_mul(100);
    let hundredths = hundredths.saturating_add(u16::try_from(time.nanoseconds / 10_000_000).unwrap_or(0).min(99));
    (
        field(moment.year.saturating_sub(1980), 9) | field(moment.month, 5) | field(moment.day, 0),
        field(moment.hour, 11) | field(moment.minute, 5) | field(moment.second / 2, 0),
        u8::try_from(hundredths).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_there_and_back() {
        for seconds in (FIRST..=LAST).step_by(1_234_567) {
            for nanoseconds in [0, 10_000_000, 990_000_000] {
                let time = Timestamp { seconds, nanoseconds };
                let (date, clock, hundredths) = write(time);
                assert_eq!(read(date, clock, hundredths), time);
            }
        }
        assert_eq!(read(0, 0, 0).seconds, FIRST);
        assert_eq!(write(Timestamp { seconds: i64::MIN, nanoseconds: 0 }), (0x21, 0, 0));
        assert_eq!(write(Timestamp { seconds: i64::MAX, nanoseconds: 0 }).0, 0xff9f);
    }
}
