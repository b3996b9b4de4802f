//! Dates of the Gregorian calendar, for file systems that keep years and months.

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A moment as people write it; each field in its usual range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: i64,
    /// From 1.
    pub(super) month: i64,
    /// From 1.
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
}

impl Moment {
    /// Seconds since the epoch, for a moment of universal time.
    pub(super) const fn seconds(self) -> i64 {
        days(self.year, self.month, self.day) * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// The moment `seconds` after the epoch, which lies within some billion years of it.
    pub(super) const fn from_seconds(seconds: i64) -> Self {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years that begin in March have the leap day last; 400 of them have 146,097 days.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + if month <= 2 { 1 } else { 0 },
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

/// Days from the epoch to a date.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        let known = [
            ((1970, 1, 1), 0),
            ((1980, 1, 1), 315_532_800),
            ((2000, 2, 29), 951_782_400),
            ((1601, 1, 1), -11_644_473_600),
        ];
        for ((year, month, day), seconds) in known {
            let moment = Moment { year, month, day, ..Moment::default() };
            assert_eq!(moment.seconds(), seconds);
            assert_eq!(Moment::from_seconds(seconds), moment);
        }
        for seconds in (-12_000_000_000..12_000_000_000).step_by(7_654_321) {
            assert_eq!(Moment::from_seconds(seconds).seconds(), seconds);
        }
    }
}
