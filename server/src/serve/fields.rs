//! The fields of a form or of a query; a name may come several times.

use super::problem::Problem;
use std::str::FromStr;

/// The fields, in the order in which they came.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn read(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The first value with this name; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim())
    }

    /// The value with this name as it was typed.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All numbers with this name.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<i64>, Problem> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| value.parse().map_err(|_| Problem::bad(format!("{name}: expected a number")))).collect()
    }

    /// A word of a closed list.
    pub(super) fn word<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Problem> {
        self.get(name).parse().map_err(|error| Problem::bad(format!("{name}: {error}")))
    }
}
