//! `strftime` in English and UTC, with the directives that chat templates use.

use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: u64 = 86_400;

/// A moment, taken apart.
struct Moment {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// From 0, Sunday.
    weekday: usize,
    /// From 1.
    day_of_year: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Moment {
    fn new(seconds: u64) -> Self {
        let (mut days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let weekday = ((days + 4) % 7) as usize;
        let mut year = 1970;
        while days >= days_in_year(year) {
            days -= days_in_year(year);
            year += 1;
        }
        let day_of_year = days + 1;
        let mut month = 0;
        while days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        let (hour, minute) = (second / 3600, second / 60 % 60);
        Self { year, month, day: days + 1, weekday, day_of_year, hour, minute, second: second % 60 }
    }

    fn hour12(&self) -> u64 {
        (self.hour + 11) % 12 + 1
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u64, month: usize) -> u64 {
    let days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month];
    if month == 1 && is_leap(year) { days + 1 } else { days }
}

/// `seconds` since 1970 in `format`; a directive that is not known is kept as it stands.
pub(super) fn format(seconds: u64, format: &str) -> String {
    let moment = Moment::new(seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let rest = chars.as_str();
        let unpadded = rest.starts_with('-');
        if unpadded {
            chars.next();
        }
        let known = chars.next().and_then(|directive| field(&moment, directive, unpadded));
        match known {
            Some(text) => out.push_str(&text),
            None => {
                write!(out, "%{}", &rest[..rest.len() - chars.as_str().len()]).expect("writing to a string succeeds");
            }
        }
    }
    out
}

fn field(moment: &Moment, directive: char, unpadded: bool) -> Option<String> {
    let number = |value: u64, width: usize| {
        let width = if unpadded { 0 } else { width };
        format!("{value:0width$}")
    };
    Some(match directive {
        'Y' => moment.year.to_string(),
        'y' => number(moment.year % 100, 2),
        'm' => number(moment.month as u64 + 1, 2),
        'd' => number(moment.day, 2),
        'e' => format!("{:2}", moment.day),
        'j' => number(moment.day_of_year, 3),
        'H' => number(moment.hour, 2),
        'I' => number(moment.hour12(), 2),
        'M' => number(moment.minute, 2),
        'S' => number(moment.second, 2),
        'B' => MONTHS[moment.month].to_owned(),
        'b' | 'h' => MONTHS[moment.month][..3].to_owned(),
        'A' => WEEKDAYS[moment.weekday].to_owned(),
        'a' => WEEKDAYS[moment.weekday][..3].to_owned(),
        'p' => if moment.hour < 12 { "AM" } else { "PM" }.to_owned(),
        'F' => format!("{}-{:02}-{:02}", moment.year, moment.month + 1, moment.day),
        'T' => format!("{:02}:{:02}:{:02}", moment.hour, moment.minute, moment.second),
        'Z' => "UTC".to_owned(),
        'z' => "+0000".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_asked() {
        for (seconds, pattern, expected) in [
            (0, "%Y-%m-%d %H:%M:%S %a %j", "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "%d %b %Y", "29 Feb 2000"),
            (1_735_689_599, "%A, %B %-d, %Y %I:%M %p day %j", "Tuesday, December 31, 2024 11:59 PM day 366"),
            (1_735_689_600, "%F %T %e|%y|%Z%z", "2025-01-01 00:00:00  1|25|UTC+0000"),
            (4_107_542_400, "%F", "2100-03-01"),
            (0, "100%% %Q %-Q %", "100% %Q %-Q %"),
        ] {
            assert_eq!(format(seconds, pattern), expected);
        }
    }
}
