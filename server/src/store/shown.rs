//! Addresses as they are shown: a signature or a password in one is asked with, and never shown or written down.

use super::address::{beside, is_web, public};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The addresses that this program was given, by what stands for them in messages, reports and files.
#[derive(Debug)]
pub(super) struct Shown(Mutex<BTreeMap<PathBuf, Secret>>);

/// An address in full.
struct Secret(String);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&public(&self.0))
    }
}

impl Shown {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// What stands for `path` from now on. Addresses that differ only in what is not shown are told apart by a number.
    pub(super) fn hide(&self, path: &Path) -> PathBuf {
        let Some(text) = path.to_str().filter(|_| is_web(path)) else { return path.to_owned() };
        let public = public(text);
        let mut names = core::iter::once(public.clone()).chain((2_u64..).map(|number| format!("{public}?{number}")));
        let mut known = self.lock();
        let name = names.find(|name| known.get(Path::new(name)).is_none_or(|secret| secret.0 == text));
        let name = PathBuf::from(name.unwrap_or(public));
        known.entry(name.clone()).or_insert_with(|| Secret(text.to_owned()));
        name
    }

    /// What `path` stands for.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        self.lock().get(path).map_or_else(|| path.to_owned(), |secret| PathBuf::from(&secret.0))
    }

    /// What stands for the object `name` in the folder of the object at `path`.
    pub(super) fn beside(&self, path: &Path, name: &str) -> PathBuf {
        match self.real(path).to_str().filter(|_| is_web(path)) {
            Some(url) => self.hide_if_secret(beside(url, name)),
            None => path.with_file_name(name),
        }
    }

    /// What stands for the object `name` in `folder`.
    pub(super) fn inside(&self, folder: &Path, name: &str) -> PathBuf {
        match self.real(folder).to_str().filter(|_| is_web(folder)) {
            Some(url) => {
                let url = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
                self.hide_if_secret(beside(&format!("{url}/-"), name))
            }
            None => folder.join(name),
        }
    }

    /// What stands for an address that was made of another one. There may be any number of them, so most are not remembered.
    fn hide_if_secret(&self, url: String) -> PathBuf {
        if public(&url) == url { PathBuf::from(url) } else { self.hide(Path::new(&url)) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Secret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_asked_with_and_not_shown() {
        let shown = Shown::new();
        let signed = Path::new("https://u:p@h/d/a.slide?X-Amz-Signature=5ec");
        let name = shown.hide(signed);
        assert_eq!((name.as_path(), shown.hide(signed)), (Path::new("https://h/d/a.slide"), name.clone()));
        assert_eq!(shown.real(&name), signed);
        let parent = shown.beside(&name, "b?.slide");
        assert_eq!(parent, Path::new("https://h/d/b%3F.slide"));
        assert_eq!(shown.real(&parent), Path::new("https://u:p@h/d/b%3F.slide"));
        assert!(!format!("{shown:?}").contains("5ec"));
        let folder = shown.hide(Path::new("https://u:p@h/d/"));
        assert_eq!(shown.inside(&folder, "b?.slide"), parent);
        assert_eq!(shown.inside(Path::new("https://h"), "a.slide"), Path::new("https://h/a.slide"));
        assert_eq!(shown.inside(Path::new("s3://b/d/"), "a.slide"), Path::new("s3://b/d/a.slide"));
    }

    #[test]
    fn addresses_that_look_alike_stay_apart() {
        let shown = Shown::new();
        let all = ["https://h/get", "https://h/get?id=1", "https://h/get?2"].map(PathBuf::from);
        let names = all.each_ref().map(|path| shown.hide(path));
        assert_eq!(names, ["https://h/get", "https://h/get?2", "https://h/get?3"].map(PathBuf::from));
        assert_eq!(names.each_ref().map(|name| shown.real(name)), all);
    }

    #[test]
    fn files_and_objects_of_s3_stand_for_themselves() {
        let shown = Shown::new();
        for path in ["/srv/a?b.slide", "s3://b/a?b.slide"].map(Path::new) {
            assert_eq!((shown.hide(path).as_path(), shown.real(path).as_path()), (path, path));
            assert_eq!(shown.beside(path, "c%.slide"), path.with_file_name("c%.slide"));
        }
    }
}
