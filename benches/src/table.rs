//! What is printed.

use std::fmt;

/// A bar that a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    /// Reached when not above this.
    AtMost(f64),
    /// Reached when not below this.
    AtLeast(f64),
    /// Only to be known.
    Report,
}

impl Bar {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtMost(bar) if value <= bar => "met",
            Self::AtLeast(bar) if value >= bar => "met",
            Self::Report => "",
            _ => "MISSED",
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AtMost(bar) => format!("<= {bar:.2}"),
            Self::AtLeast(bar) => format!(">= {bar:.2}"),
            Self::Report => String::new(),
        };
        f.pad(&text)
    }
}

/// A table that is printed row by row, as rows take their time.
#[derive(Debug, Default)]
pub struct Table {
    met: u32,
    missed: u32,
}

impl Table {
    /// A group of figures and the command that they come from.
    #[expect(clippy::print_stdout, reason = "the table is the program's answer")]
    pub fn group(&self, title: &str, command: &str) {
        println!("\n{title}\n    {command}");
        println!("    {:<58} {:>8} {:>9}  {:<6}  from", "figure", "value", "bar", "");
    }

    /// One figure: a ratio, its bar, and the measured values behind it.
    #[expect(clippy::print_stdout, reason = "the table is the program's answer")]
    pub fn row(&mut self, figure: &str, value: f64, bar: Bar, from: &str) {
        let verdict = bar.verdict(value);
        self.met += u32::from(verdict == "met");
        self.missed += u32::from(verdict == "MISSED");
        println!("    {figure:<58} {value:>8.3} {bar:>9}  {verdict:<6}  {from}");
    }

    /// A figure that cannot be measured here, and why.
    #[expect(clippy::print_stdout, reason = "the table is the program's answer")]
    pub fn skip(&self, figure: &str, why: &str) {
        println!("    {figure:<58} {:>8} {:>9}  {:<6}  {why}", "-", "", "");
    }

    /// The last line.
    #[expect(clippy::print_stdout, reason = "the table is the program's answer")]
    pub fn close(&self) {
        println!("\n{} bars met, {} missed", self.met, self.missed);
    }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The middle of some values; the upper one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
