//! `slidecast image stage`: fills a cache before a deployment needs it, at a rate and at the hours when the line is free.

use super::address::Address;
use super::remote::{RemoteLayer, Staged};
use super::transfer::{failed, refused};
use super::{STORES, open};
use crate::cli::Stage;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::image::{advance, bar};
use crate::say;
use crate::shown::count;
use core::str::FromStr;
use core::time::Duration;
use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use slidecast_image::{Image, LayerInfo, verify_image};
use slidecast_proto::quantity::Bytes;
use std::time::Instant;

const DAY: u32 = 24 * 60 * 60;
/// How often it is looked whether the hours have begun.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Hours of the day, in seconds from midnight; those of a night end before they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u32,
    to: u32,
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| Time::strptime("%H:%M", text).ok().map(second_of_day);
        let hours = text.split_once('-').and_then(|(from, to)| Some(Self { from: time(from)?, to: time(to)? }));
        hours
            .filter(|hours| hours.from != hours.to)
            .ok_or_else(|| "expected hours of the day such as 22:00-06:00".to_owned())
    }
}

impl Hours {
    /// How long it takes until they begin, `now` seconds after midnight; nothing while they last.
    fn wait(self, now: u32) -> Duration {
        let since = |time: u32| (DAY + now - time) % DAY;
        let lasts = (DAY + self.to - self.from) % DAY;
        if since(self.from) < lasts { Duration::ZERO } else { Duration::from_secs(u64::from(DAY - since(self.from))) }
    }
}

/// Keeps to a rate.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    /// When what was fetched so far has had its time.
    due: Duration,
}

impl Pace {
    /// How long to wait `now`, after so many bytes more. Time that passed without fetching anything is not made up for.
    fn wait(&mut self, now: Duration, bytes: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.due = self.due.max(now) + takes;
        self.due.saturating_sub(now)
    }
}

/// In seconds from midnight.
fn second_of_day(time: Time) -> u32 {
    let seconds = i32::from(time.hour()) * 3600 + i32::from(time.minute()) * 60 + i32::from(time.second());
    u32::try_from(seconds).unwrap_or(0)
}

/// Fetches what the cache lacks of an image, and checks all of it.
///
/// # Errors
/// The image cannot be read or is not good, or the cache has no room for it.
pub(crate) fn run(args: &Stage) -> Result<ExitCode, Failure> {
    if args.kept.cache.is_none() {
        return Err(refused("staging", &args.file, "name the cache that is to be filled: --cache DIR"));
    }
    super::keep(&args.kept)?;
    wait_for_hours(args);
    let image = open(&args.file)?;
    let (mut fetched, mut there, mut layers) = (0, 0, 0_usize);
    let begun = Instant::now();
    let mut pace = args.rate.map(|mbits| Pace { bytes_per_second: u64::from(mbits) * 125_000, due: Duration::ZERO });
    let mut opened = Vec::new();
    for layer in image.layers() {
        let Some(remote) = remote(&layer)? else { continue };
        let bar = bar("staging");
        for chunk in 0..remote.chunks() {
            let staged = remote.stage(chunk, pace.is_none()).map_err(failed("staging", &layer.path))?;
            match staged {
                Staged::Fetched(bytes) => {
                    fetched += bytes;
                    let wait = pace.as_mut().map_or(Duration::ZERO, |pace| pace.wait(begun.elapsed(), bytes));
                    std::thread::sleep(wait);
                    wait_for_hours(args);
                }
                Staged::There(bytes) => there += bytes,
                Staged::NotKept => {
                    let why = "the cache does not take it: it has no room (--cache-size), or it cannot be written; the line before says why";
                    return Err(refused("staging", &layer.path, why));
                }
            }
            advance(&bar, chunk + 1, remote.chunks());
        }
        bar.finish_and_clear();
        layers += 1;
        opened.push(remote);
    }
    if layers == 0 {
        return Err(refused("staging", &args.file, "it lies on this machine: there is nothing to fetch"));
    }
    checked(&image, &opened)?;
    let (name, layers) = (args.file.display(), count(layers, "layer"));
    let (fetched, there) = (Bytes(fetched), Bytes(there));
    say(&format!(
        "{name}: {layers} in the cache and good: {fetched} fetched, {there} were there; manifest root {}",
        image.root()
    ));
    Ok(ExitCode::Done)
}

/// The layer, if it lies on a server.
fn remote(layer: &LayerInfo) -> Result<Option<RemoteLayer>, Failure> {
    let opening = || failed("opening", &layer.path);
    let Some(address) = Address::of(&STORES.shown.real(&layer.path)).map_err(opening())? else { return Ok(None) };
    let (shared, cache) = (STORES.shared().map_err(opening())?, STORES.cache());
    let remote = RemoteLayer::open(&shared, address, &layer.path, cache.as_ref()).map_err(opening())?;
    Ok(Some(remote))
}

/// Checks every byte. What the cache has of an image that is not good is fetched again the next time.
fn checked(image: &Image, layers: &[RemoteLayer]) -> Result<(), Failure> {
    let bar = bar("verifying");
    let checked = verify_image(image, |progress| advance(&bar, progress.done_bytes, progress.stored_bytes));
    bar.finish_and_clear();
    if let Err(error) = checked {
        layers.iter().for_each(RemoteLayer::forget);
        return Err(error.into());
    }
    Ok(())
}

/// Waits until the hours begin, in the time zone of this machine.
fn wait_for_hours(args: &Stage) {
    let Some(hours) = args.hours else { return };
    let wait = || hours.wait(second_of_day(TimeZone::system().to_datetime(Timestamp::now()).time()));
    if !wait().is_zero() {
        crate::complain(&format!("waiting for {} minutes until the hours begin", wait().as_secs().div_ceil(60)));
    }
    // The clock may be set meanwhile, or summer time begin or end.
    while !wait().is_zero() {
        std::thread::sleep(wait().min(LOOK_AGAIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_a_day_and_of_a_night_are_waited_for() {
        let hours = |text: &str| text.parse::<Hours>().unwrap();
        let minutes = |text: &str, hour: u32, minute: u32| hours(text).wait((hour * 60 + minute) * 60).as_secs() / 60;
        assert_eq!(minutes("12:00-13:30", 12, 0), 0);
        assert_eq!(minutes("12:00-13:30", 13, 29), 0);
        assert_eq!(minutes("12:00-13:30", 13, 30), 22 * 60 + 30);
        assert_eq!(minutes("12:00-13:30", 11, 59), 1);
        for (hour, minute, wait) in [(22, 0, 0), (23, 59, 0), (0, 0, 0), (5, 59, 0), (6, 0, 16 * 60), (21, 0, 60)] {
            assert_eq!(minutes("22:00-06:00", hour, minute), wait, "{hour}:{minute}");
        }
        for wrong in ["", "22-06", "24:00-06:00", "22:60-06:00", "22:00", "06:00-06:00", "-1:00-02:00"] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_kept_on_average_and_a_pause_is_not_made_up_for() {
        let mut pace = Pace { bytes_per_second: 1 << 20, due: Duration::ZERO };
        let second = Duration::from_secs(1);
        assert_eq!(pace.wait(Duration::ZERO, 1 << 20), second);
        assert_eq!(pace.wait(second / 2, 1 << 20), second * 3 / 2, "a burst waits longer");
        assert_eq!(pace.wait(second * 100, 1 << 20), second);
    }
}
