//! Sizes, durations and link rates as people write them: `64MiB`, `1G`, `90s`, `100M`.
//!
//! Numbers are whole. `K`, `M`, `G`, `T` and `KiB`.. count by 1,024; `kB`, `MB`.. count by 1,000.

use core::fmt;
use core::time::Duration;

/// Why a quantity was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAQuantity {
    /// What it should have looked like.
    pub expected: &'static str,
}

impl fmt::Display for NotAQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for NotAQuantity {}

/// The number in front of `text` and the unit after it; `None` without digits or past 64 bits.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// A size in bytes: `4096`, `64KiB`, `64K`, `2M`, `1GiB`, `100G`, `1T`, `500GB`.
///
/// # Errors
/// [`NotAQuantity`] for anything else, and for what does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, NotAQuantity> {
    let parsed = split(text).and_then(|(number, unit)| {
        let factor: u64 = match unit {
            "" | "B" => 1,
            "K" | "k" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return None,
        };
        number.checked_mul(factor)
    });
    parsed.ok_or(NotAQuantity { expected: "a size such as 64KiB, 1MiB or 2G" })
}

/// A duration: `500ms`, `10s`, `5m`, `2h`; a bare number is seconds.
///
/// # Errors
/// [`NotAQuantity`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, NotAQuantity> {
    let parsed = split(text).and_then(|(number, unit)| match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" | "min" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    });
    parsed.ok_or(NotAQuantity { expected: "a duration such as 10s or 5m" })
}

/// A link rate in Mbit/s: `100M`, `1G`, `1000Mbit`; a bare number is Mbit/s.
///
/// # Errors
/// [`NotAQuantity`] for anything else, for zero and for more than 32 bits of Mbit/s.
pub fn parse_mbits(text: &str) -> Result<u32, NotAQuantity> {
    let parsed = split(text).and_then(|(number, unit)| {
        let factor: u64 = match unit.to_ascii_lowercase().trim_end_matches("/s").trim_end_matches("bit") {
            "" | "m" => 1,
            "g" => 1_000,
            _ => return None,
        };
        number.checked_mul(factor).and_then(|mbits| u32::try_from(mbits).ok()).filter(|mbits| *mbits > 0)
    });
    parsed.ok_or(NotAQuantity { expected: "a link rate such as 100M, 1G or 10Gbit" })
}

/// Shows a number of bytes for people: `512 B`, `64 KiB`, `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let tenths = (self.0 >> (shift - 10)).saturating_mul(10) >> 10;
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(f, "{whole} {unit}"),
            (whole, tenth) => write!(f, "{whole}.{tenth} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_unless_they_end_in_a_capital_b_alone() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64KiB"), Ok(64 << 10));
        assert_eq!(parse_bytes("1 M"), Ok(1 << 20));
        assert_eq!(parse_bytes("2G"), Ok(2 << 30));
        assert_eq!(parse_bytes("500GB"), Ok(500_000_000_000));
    }

    #[test]
    fn what_is_no_size_or_too_large_is_refused() {
        for text in ["", "x", "-1", "1.5G", "1Gi", "99999999999T", "1 2"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_and_rates() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("soon").is_err());
        assert_eq!(parse_mbits("100M"), Ok(100));
        assert_eq!(parse_mbits("10Gbit/s"), Ok(10_000));
        assert!(parse_mbits("0").is_err());
    }

    #[test]
    fn bytes_are_shown_with_at_most_one_decimal() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes(64 << 20).to_string(), "64 MiB");
        assert_eq!(Bytes(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16777215.9 TiB");
    }
}
