//! The examples that `--help` shows for commands that look into images, compare and move them.

pub(super) const NBD_EXAMPLES: &str = "\
Examples:
  slidecast image nbd monday.slide --listen 127.0.0.1:10809
  slidecast image nbd monday.slide --listen unix:/run/monday.sock
  slidecast image nbd s3://images/lab/monday.slide --listen unix:/run/monday.sock --cache /c

Then, for instance:
  qemu-img convert -O qcow2 nbd://127.0.0.1:10809/disk monday.qcow2
  qemu-system-x86_64 -m 2G -drive file=nbd://127.0.0.1:10809/disk,format=raw,snapshot=on
  nbdfuse /mnt/disk nbd://127.0.0.1:10809/disk

It runs until a signal ends it. Nobody can write, and everybody who reaches the address can read.

Exit codes: 0 ended by a signal, 1 the image is not good or the address is in use, 2 wrong usage.";

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  slidecast image diff monday.slide tuesday.slide
  slidecast image diff monday.slide tuesday.slide --json";

pub(super) const FLATTEN_EXAMPLES: &str = "\
Examples:
  slidecast image flatten friday.slide -o week.slide
  slidecast image flatten friday.slide -o week.slide --codec zstd:12";

pub(super) const REBASE_EXAMPLES: &str = "\
Examples:
  slidecast image rebase friday.slide --parent new-base.slide -o friday-on-new.slide";

pub(super) const LIST_EXAMPLES: &str = "\
Examples:
  slidecast image list s3://images/lab/
  slidecast image list s3://images/lab/ --json";

pub(super) const PULL_EXAMPLES: &str = "\
Examples:
  slidecast image pull https://images.example/lab/monday.slide
  slidecast image pull s3://images/lab/monday.slide --to /srv/images";

pub(super) const PUSH_EXAMPLES: &str = "\
Examples:
  slidecast image push monday.slide s3://images/lab/";

pub(super) const STAGE_EXAMPLES: &str = "\
Examples:
  slidecast image stage s3://images/lab/monday.slide --cache /var/cache/slidecast
  slidecast image stage s3://images/lab/monday.slide --cache /c --rate 20M --hours 22:00-06:00

All of the image is checked at the end. What was fetched before it was stopped is not fetched again.

Exit codes: 0 all of it is in the cache and good, 1 it is not, 2 wrong usage.";

pub(super) const GC_EXAMPLES: &str = "\
Examples:
  slidecast image gc s3://images/lab/ --keep friday.slide --keep kiosk.slide --dry-run
  slidecast image gc s3://images/lab/ --keep friday.slide --keep kiosk.slide --grace 24h

Parents of what stays stay, too. The folder does not know what is being deployed from it: keep that.

Exit codes: 0 done, 1 it is refused or the server refuses, 2 wrong usage.";

/// All of them.
#[cfg(test)]
pub(super) const ALL: [&str; 9] = [
    NBD_EXAMPLES,
    DIFF_EXAMPLES,
    FLATTEN_EXAMPLES,
    REBASE_EXAMPLES,
    LIST_EXAMPLES,
    PULL_EXAMPLES,
    PUSH_EXAMPLES,
    STAGE_EXAMPLES,
    GC_EXAMPLES,
];
