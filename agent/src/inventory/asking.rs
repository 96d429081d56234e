//! Questions that a file system that hangs leaves without an answer, asked by threads where nobody may wait for it.
//!
//! A loop device is asked what is behind it, and answers only when that file does: on a network file system without its server,
//! or on a disk that is spinning up, that takes any time.

use super::kernel_numbers;
use crate::sys::blkdev::{self, LoopStatus};
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long whoever may not wait does wait for all answers together.
const BRIEFLY: Duration = Duration::from_millis(500);

/// The stack of a thread that asks one question, in bytes.
const STACK: usize = 64 << 10;

/// How long to wait for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// As long as it takes.
    ForAll,
    /// Half a second at most: the thread has a network to serve.
    Briefly,
}

/// What is asked of a path.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The path of a file, or of a loop device's node.
    pub(super) path: PathBuf,
    /// Of a loop device: its folder in sysfs, and the path that stands there as the one behind it.
    pub(super) behind: Option<(PathBuf, PathBuf)>,
}

/// What is known of a path. Whatever could not be had is missing.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The path with all links followed.
    pub(super) real: Option<PathBuf>,
    /// The file there, or behind the loop device.
    pub(super) meta: Option<Metadata>,
    /// What the loop device says.
    pub(super) status: Option<LoopStatus>,
}

/// What has been asked by threads. A question stays until its answer has come, and is not asked again: each hung thread is one
/// too many already.
static ASKED: Mutex<Vec<(PathBuf, Option<Answer>)>> = Mutex::new(Vec::new());
static ANSWERED: Condvar = Condvar::new();

/// Asks everything at once. An answer that did not come in time is none.
pub(super) fn ask(wait: Wait, questions: &[Question]) -> Vec<Option<Answer>> {
    ask_with(wait, questions, answer)
}

fn ask_with(wait: Wait, questions: &[Question], answer: fn(&Question) -> Answer) -> Vec<Option<Answer>> {
    if wait == Wait::ForAll {
        return questions.iter().map(|question| Some(answer(question))).collect();
    }
    questions.iter().for_each(|question| begin(question, answer));
    let until = Instant::now() + BRIEFLY;
    questions.iter().map(|question| wait_for(&question.path, until)).collect()
}

fn asked() -> MutexGuard<'static, Vec<(PathBuf, Option<Answer>)>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(question: &Question, answer: fn(&Question) -> Answer) {
    let mut asked_so_far = asked();
    // The last answer to the same question is of no use any more.
    asked_so_far.retain(|(path, answer)| *path != question.path || answer.is_none());
    if asked_so_far.iter().any(|(path, _)| *path == question.path) {
        return;
    }
    let asking = question.clone();
    let thread = thread::Builder::new().name("asking".to_owned()).stack_size(STACK).spawn(move || {
        let found = answer(&asking);
        if let Some((_, place)) = asked().iter_mut().find(|(path, _)| *path == asking.path) {
            *place = Some(found);
        }
        ANSWERED.notify_all();
    });
    // Without a thread there is no answer, as if it hung.
    if thread.is_ok() {
        asked_so_far.push((question.path.clone(), None));
    }
}

fn wait_for(path: &Path, until: Instant) -> Option<Answer> {
    let mut all = asked();
    loop {
        let index = all.iter().position(|(other, _)| other == path)?;
        if all[index].1.is_some() {
            return all.swap_remove(index).1;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        all = ANSWERED.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn answer(question: &Question) -> Answer {
    match &question.behind {
        None => {
            let real = fs::canonicalize(&question.path).ok();
            let meta = real.as_ref().and_then(|real| fs::metadata(real).ok());
            Answer { real, meta, status: None }
        }
        Some((dir, path)) => {
            let status = status(&question.path, dir);
            let meta = if status.is_none() { fs::metadata(path).ok() } else { None };
            Answer { real: None, meta, status }
        }
    }
}

/// Asks a loop device, if its node is the device that sysfs describes.
fn status(node: &Path, dir: &Path) -> Option<LoopStatus> {
    let dev = fs::read_to_string(dir.join("dev")).ok()?;
    let is_it = |meta: &Metadata| kernel_numbers(meta).as_deref() == Some(dev.trim());
    fs::metadata(node).ok().filter(is_it)?;
    blkdev::loop_status(&File::open(node).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path of a name that is not "hung", or once a folder is there.
    fn slow(question: &Question) -> Answer {
        while question.path.ends_with("hung") && !question.path.exists() {
            thread::sleep(Duration::from_millis(5));
        }
        Answer { real: Some(question.path.clone()), ..Answer::default() }
    }

    #[test]
    fn a_question_that_hangs_keeps_nobody_waiting_and_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let questions = ["one", "hung", "three"].map(|name| Question { path: dir.path().join(name), behind: None });
        let answered = |wait| -> Vec<bool> { ask_with(wait, &questions, slow).iter().map(Option::is_some).collect() };
        let is_pending =
            || asked().iter().filter(|(path, answer)| *path == questions[1].path && answer.is_none()).count();
        assert_eq!(answered(Wait::Briefly), [true, false, true]);
        assert_eq!(answered(Wait::Briefly), [true, false, true]);
        assert_eq!(is_pending(), 1);
        fs::create_dir(&questions[1].path).unwrap();
        while is_pending() > 0 {
            thread::yield_now();
        }
        assert_eq!(answered(Wait::Briefly), [true; 3]);
        assert_eq!(answered(Wait::ForAll), [true; 3]);
    }
}
