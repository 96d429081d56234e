//! When a deployment begins: `start` of a request. A time is an instant; the time zone in which it was named is kept beside it, so that it is
//! shown as it was meant. Clocks that go forward or back are the zone's business, once, when the request comes.

use super::problem::Problem;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};
use slidecast_proto::quantity::parse_duration;

/// A start that is missed by more than this many seconds does not happen, unless the request says otherwise.
pub(super) const GRACE: i64 = 900;
/// The longest grace: a week.
const MAX_GRACE: i64 = 7 * 86_400;

/// `start` of a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartRequest {
    pub(super) when: When,
    /// How many machines must be ready, or which part of them, such as `80 %`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wait_for: Option<Count>,
    /// The time: local in `zone`, or with an offset or `Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<String>,
    /// A name such as `Europe/Berlin`; UTC if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<String>,
    /// How late it may begin if the server was not running at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grace: Option<String>,
}

/// When a deployment begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum When {
    /// With the machines that are connected.
    Now,
    /// When enough machines are ready.
    #[default]
    Ready,
    /// At a time.
    At,
}

/// A number of machines, or a part of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Count {
    /// So many.
    Number(u32),
    /// A part, such as `80 %`.
    Part(String),
}

impl Count {
    /// How many machines of `all` it means.
    pub(super) fn of(&self, all: u32) -> Result<u32, Problem> {
        let count = match self {
            Self::Number(count) => *count,
            Self::Part(text) => {
                let number = text.trim().strip_suffix('%').map(str::trim_end).and_then(|text| text.parse::<u32>().ok());
                let percent = number.filter(|percent| (1..=100).contains(percent));
                let percent = percent.ok_or_else(|| {
                    Problem::bad(format!("wait_for: expected a number or a part such as \"80 %\", not {text:?}"))
                })?;
                u32::try_from((u64::from(all) * u64::from(percent)).div_ceil(100)).unwrap_or(all)
            }
        };
        match (1..=all).contains(&count) {
            true => Ok(count),
            false => Err(Problem::bad(format!("wait_for: {count} is not in 1..={all}"))),
        }
    }
}

/// A time at which something begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// In seconds since 1970.
    pub(super) at: i64,
    /// The zone in which it was named.
    pub(super) zone: String,
    /// How many seconds late it may be.
    pub(super) grace: i64,
}

impl StartRequest {
    /// The time at which it begins; nothing if it is not to wait for one.
    pub(super) fn moment(&self) -> Result<Option<Moment>, Problem> {
        let grace = match &self.grace {
            None => GRACE,
            Some(text) => {
                let grace = parse_duration(text).map_err(|error| Problem::bad(format!("grace: {error}")))?;
                i64::try_from(grace.as_secs()).unwrap_or(i64::MAX).min(MAX_GRACE)
            }
        };
        match (self.when, &self.at) {
            (When::At, Some(text)) => {
                let zone = self.zone.as_deref().unwrap_or("UTC").trim();
                let at = instant(text.trim(), zone)?;
                Ok(Some(Moment { at, zone: zone.to_owned(), grace }))
            }
            (When::At, None) => Err(Problem::bad("at: expected a time, because start is \"at\"")),
            (_, None) if self.zone.is_none() && self.grace.is_none() => Ok(None),
            _ => Err(Problem::bad("at: a time, zone or grace is given, and when is not \"at\"")),
        }
    }
}

fn instant(text: &str, zone: &str) -> Result<i64, Problem> {
    let wrong = |what: String| Problem::bad(format!("at: {what}"));
    let zone_of = TimeZone::get(zone).map_err(|_| Problem::bad(format!("zone: there is no time zone {zone:?}")))?;
    // With an offset it is an instant already.
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant.as_second());
    }
    let local: DateTime = text.parse().map_err(|_| {
        wrong(format!("expected a time such as 2026-12-01T02:00, or 2026-12-01T02:00:00+01:00, not {text:?}"))
    })?;
    let ambiguous = zone_of.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {}
        AmbiguousOffset::Gap { before, after } => {
            return Err(wrong(format!(
                "{local} does not exist in {zone}: clocks go forward there, from UTC{before} to UTC{after}; choose another time"
            )));
        }
        AmbiguousOffset::Fold { before, after } => {
            return Err(wrong(format!(
                "{local} comes twice in {zone}, because clocks go back; write {local}{before} for the first time or {local}{after} for the second"
            )));
        }
    }
    let instant = ambiguous.unambiguous().map_err(|error| wrong(error.to_string()))?;
    Ok(instant.as_second())
}

/// An instant as people in this zone say it: `2026-12-01 02:00:00 Europe/Berlin (UTC+01)`.
pub(super) fn in_zone(at: i64, zone: &str) -> String {
    let found = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let Ok(instant) = Timestamp::from_second(at) else { return String::new() };
    let name = if zone.is_empty() { "UTC" } else { zone };
    let (text, offset) = (found.to_datetime(instant), found.to_offset(instant));
    let text = text.to_string().replace('T', " ");
    match offset.is_zero() {
        true => format!("{text} {name}"),
        false => format!("{text} {name} (UTC{offset})"),
    }
}

/// The zone of this machine, for forms.
pub(super) fn own_zone() -> String {
    TimeZone::system().iana_name().unwrap_or("UTC").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &str) -> Result<i64, String> {
        let request = StartRequest {
            when: When::At,
            at: Some(text.to_owned()),
            zone: Some(zone.to_owned()),
            ..StartRequest::default()
        };
        request.moment().map(|moment| moment.unwrap().at).map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_same_hour_is_another_instant_after_clocks_have_changed() {
        // In 2026 clocks in Germany go forward on 29 March and back on 25 October, both at 01:00 UTC.
        let before = at("2026-03-28T03:00", "Europe/Berlin").unwrap();
        let after = at("2026-03-29T03:00", "Europe/Berlin").unwrap();
        assert_eq!(after - before, 23 * 3600);
        assert_eq!(after, at("2026-03-29T01:00:00Z", "UTC").unwrap());
        let (before, after) = (at("2026-10-24T03:00", "Europe/Berlin"), at("2026-10-25T03:00", "Europe/Berlin"));
        assert_eq!(after.unwrap() - before.unwrap(), 25 * 3600);
        assert_eq!(in_zone(after_zone(), "Europe/Berlin"), "2026-10-25 02:30:00 Europe/Berlin (UTC+02)");
    }

    fn after_zone() -> i64 {
        at("2026-10-25T02:30:00+02:00", "Europe/Berlin").unwrap()
    }

    #[test]
    fn an_hour_that_does_not_exist_or_comes_twice_is_refused_with_what_to_write_instead() {
        let said = at("2026-03-29T02:30", "Europe/Berlin").unwrap_err();
        assert!(said.contains("does not exist in Europe/Berlin"), "{said}");
        let said = at("2026-10-25T02:30", "Europe/Berlin").unwrap_err();
        assert!(said.contains("comes twice") && said.contains("2026-10-25T02:30:00+02"), "{said}");
        let (first, second) = ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00");
        assert_eq!(at(second, "Europe/Berlin").unwrap() - at(first, "Europe/Berlin").unwrap(), 3600);
        assert!(at("tomorrow", "UTC").unwrap_err().starts_with("at: expected a time"));
        assert!(at("2026-12-01T02:00", "Europe/Atlantis").unwrap_err().starts_with("zone: there is no time zone"));
    }

    #[test]
    fn a_count_is_a_number_or_a_part_and_never_none() {
        let part = |text: &str| Count::Part(text.to_owned());
        assert_eq!(part("80 %").of(4).unwrap(), 4);
        assert_eq!(part("50%").of(5).unwrap(), 3);
        assert_eq!(part("1 %").of(3).unwrap(), 1);
        assert_eq!(Count::Number(2).of(3).unwrap(), 2);
        for wrong in [part("0 %"), part("101 %"), part("half"), Count::Number(0), Count::Number(4)] {
            assert!(wrong.of(3).unwrap_err().to_string().starts_with("wait_for: "), "{wrong:?}");
        }
    }

    #[test]
    fn a_time_without_when_at_is_a_contradiction() {
        let request = StartRequest { at: Some("2026-12-01T02:00".to_owned()), ..StartRequest::default() };
        assert!(request.moment().is_err());
        assert_eq!(StartRequest::default().moment().unwrap(), None);
    }
}
