//! Parsers for the values of flags. Each says what it expects.

use crate::nic::CardSpeed;
use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use slidecast_image::create::MAX_DEDUP_RUN;
use slidecast_proto::quantity::{Bytes, parse_bytes, parse_mbits};
use slidecast_proto::units::{BLOCK_MAX, BLOCK_MIN, GRAIN_MIN};
use std::path::PathBuf;
use std::str::FromStr;

pub(super) fn sector_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" | "4KiB" => Ok(4096),
        _ => Err("a sector has 512 or 4096 bytes".into()),
    }
}

/// A parser for the words of one of the closed lists.
pub(super) fn words<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse::<T>())
}

/// A parser for a layer: a file or an address, of which only what may be shown is known from here on.
pub(super) fn layer_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(crate::store::named)
}

fn power_of_two(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    let size = u32::try_from(bytes).ok().filter(|size| size.is_power_of_two() && (least..=most).contains(size));
    let (least, most) = (Bytes(least.into()), Bytes(most.into()));
    size.ok_or_else(|| format!("expected a power of two from {least} to {most}"))
}

pub(super) fn block_size(text: &str) -> Result<u32, String> {
    power_of_two(text, BLOCK_MIN, BLOCK_MAX)
}

pub(super) fn grain_size(text: &str) -> Result<u32, String> {
    power_of_two(text, GRAIN_MIN, BLOCK_MAX)
}

pub(super) fn dedup_run(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    let good = (1..=MAX_DEDUP_RUN).contains(&bytes);
    good.then_some(bytes).ok_or_else(|| format!("expected 1 byte to {}", Bytes(MAX_DEDUP_RUN)))
}

pub(super) fn card_speed(text: &str) -> Result<CardSpeed, String> {
    let (name, rate) = text.split_once('=').ok_or("expected a card and its speed, such as eth1=10G")?;
    let mbits = parse_mbits(rate).map_err(|error| error.to_string())?;
    Ok(CardSpeed { name: name.to_owned(), mbits })
}
