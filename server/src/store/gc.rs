//! `slidecast image gc`: removes layers from a folder of a bucket that no image which is kept is made of.

use super::address::Address;
use super::remote::RemoteLayer;
use super::s3::{Listed, Object};
use super::transfer::{failed, refused};
use super::{STORES, Stores};
use crate::cli::CollectImages;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::say;
use crate::shown::{count, shown};
use core::time::Duration;
use jiff::Timestamp;
use slidecast_image::store::{LayerLink, layer_link};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::units::Hash;
use std::collections::HashSet;
use std::path::Path;

const COLLECTING: &str = "collecting in";

/// A layer in the folder.
#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    bytes: u64,
    /// For how long it has been there; `None` if the server does not say it.
    age: Option<Duration>,
    /// Which layer it is; `None` if it cannot be read.
    link: Option<LayerLink>,
}

/// Which of `all` go, each before its parent. A layer stays if it is named, if it is younger than `grace`, if nobody can tell what it is, or
/// if a layer that stays is an increment of it.
fn unneeded(all: &[Candidate], named: &[String], grace: Duration) -> Vec<usize> {
    let stays = |layer: &Candidate| {
        layer.link.is_none() || layer.age.is_none_or(|age| age < grace) || named.contains(&layer.name)
    };
    let mut needed: HashSet<Hash> =
        all.iter().filter(|layer| stays(layer)).filter_map(|layer| Some(layer.link?.id)).collect();
    loop {
        let parents = all.iter().filter_map(|layer| layer.link).filter(|link| needed.contains(&link.id));
        let more: Vec<_> = parents.filter_map(|link| link.parent).filter(|parent| !needed.contains(parent)).collect();
        if more.is_empty() {
            break;
        }
        needed.extend(more);
    }
    let goes = |layer: &Candidate| !stays(layer) && layer.link.is_some_and(|link| !needed.contains(&link.id));
    let mut gone: Vec<usize> = (0..all.len()).filter(|at| goes(&all[*at])).collect();
    gone.sort_by_key(|at| core::cmp::Reverse(all[*at].link.map_or(0, |link| link.depth)));
    gone
}

/// Removes what is not needed.
///
/// # Errors
/// The address is none of a bucket, a layer that is to be kept is not there, or the server refuses.
pub(crate) fn run(args: &CollectImages) -> Result<ExitCode, Failure> {
    let url = args.url.as_path();
    let Some(Address::S3(folder)) = Address::of(&url.join("-")).map_err(failed(COLLECTING, url))? else {
        return Err(refused(COLLECTING, url, "expected s3://BUCKET/FOLDER/"));
    };
    collect(&STORES, &folder, args)
}

/// Removes what is not needed in the folder of an object.
pub(super) fn collect(stores: &Stores, folder: &Object, args: &CollectImages) -> Result<ExitCode, Failure> {
    let url = args.url.as_path();
    let listed = layers(stores, folder, url)?;
    for name in &args.keep {
        if !listed.iter().any(|object| object.name() == name) {
            return Err(refused(
                COLLECTING,
                url,
                &format!("{name:?}, which is to be kept, is not there: nothing is removed"),
            ));
        }
    }
    let all = listed.iter().map(|object| candidate(stores, folder, object, url)).collect::<Result<Vec<_>, _>>()?;
    for layer in all.iter().filter(|layer| layer.link.is_none()) {
        crate::complain(&format!("note: {} cannot be read as a layer: it stays", shown(&layer.name)));
    }
    let gone = unneeded(&all, &args.keep, args.grace);
    // What somebody has put there meanwhile may need what was about to go.
    if !args.dry_run && layers(stores, folder, url)? != listed {
        return Err(refused(COLLECTING, url, "the folder was changed meanwhile: nothing is removed, try it again"));
    }
    let mut freed = 0;
    for at in &gone {
        let layer = &all[*at];
        freed += layer.bytes;
        if !args.dry_run {
            let object = folder.beside(&layer.name);
            let removed = stores.shared().and_then(|shared| shared.client().delete(|| object.delete_url()));
            removed.map_err(failed("removing", &url.join(&layer.name)))?;
        }
        let done = if args.dry_run { "would be removed" } else { "removed" };
        say(&format!("{:>10}  {}: {done}", Bytes(layer.bytes).to_string(), shown(&layer.name)));
    }
    let (removed, kept) = (count(gone.len(), "layer"), all.len() - gone.len());
    let done = if args.dry_run { "would be removed" } else { "removed" };
    say(&format!("{}: {removed} of {} {done}, {kept} kept", url.display(), Bytes(freed)));
    Ok(ExitCode::Done)
}

fn layers(stores: &Stores, folder: &Object, url: &Path) -> Result<Vec<Listed>, Failure> {
    let mut listed = stores.listed(folder).map_err(failed("listing", url))?;
    listed.retain(|object| object.name().ends_with(".slide"));
    Ok(listed)
}

fn candidate(stores: &Stores, folder: &Object, object: &Listed, url: &Path) -> Result<Candidate, Failure> {
    let path = url.join(object.name());
    let changed: Option<Timestamp> = object.changed.parse().ok();
    let age = changed.and_then(|changed| Duration::try_from(Timestamp::now().duration_since(changed)).ok());
    // Without an answer nothing is known of its parents.
    let opening = || failed("opening", &path);
    let (shared, address) = (stores.shared().map_err(opening())?, Address::S3(folder.beside(object.name())));
    let layer = RemoteLayer::open(&shared, address, &path, None).map_err(opening())?;
    let link = layer_link(&layer, &path).ok();
    Ok(Candidate { name: object.name().to_owned(), bytes: object.bytes, age, link })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Layer `id` on `parent`, 0 for none, that has been there for so many hours.
    fn layer(id: u8, parent: u8, hours: u32) -> Candidate {
        let hash = |id: u8| Hash([id; 32]);
        let link = LayerLink { id: hash(id), parent: (parent > 0).then(|| hash(parent)), depth: id.into() };
        Candidate { name: format!("{id}.slide"), bytes: 1, age: Some(HOUR * hours), link: Some(link) }
    }

    fn gone(all: &[Candidate], named: &[&str]) -> Vec<String> {
        let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
        unneeded(all, &named, HOUR * 24).into_iter().map(|at| all[at].name.clone()).collect()
    }

    #[test]
    fn what_is_named_or_young_stays_with_all_its_parents() {
        // 1 <- 2 <- 3, 2 <- 4, 5 <- 6.
        let all =
            [layer(1, 0, 99), layer(2, 1, 99), layer(3, 2, 99), layer(4, 2, 99), layer(5, 0, 99), layer(6, 5, 99)];
        assert_eq!(gone(&all, &["3.slide"]), ["6.slide", "5.slide", "4.slide"], "children go first");
        assert_eq!(gone(&all, &["6.slide"]), ["4.slide", "3.slide", "2.slide", "1.slide"]);
        assert_eq!(gone(&all, &["1.slide", "6.slide"]), ["4.slide", "3.slide", "2.slide"]);
        let mut young = all.clone();
        young[3].age = Some(HOUR);
        assert_eq!(gone(&young, &["6.slide"]), ["3.slide"]);
        young[3].age = None;
        assert_eq!(gone(&young, &["6.slide"]), ["3.slide"], "the server does not say since when it is there");
    }

    #[test]
    fn what_cannot_be_read_stays_and_so_does_each_copy_of_what_is_needed() {
        let mut all = [layer(1, 0, 99), layer(1, 0, 99), layer(2, 1, 99), layer(3, 0, 99)];
        all[1].name = "copy.slide".to_owned();
        all[3].link = None;
        assert_eq!(gone(&all, &["2.slide"]), [""; 0]);
        assert_eq!(gone(&all, &[]).len(), 3);
    }
}
