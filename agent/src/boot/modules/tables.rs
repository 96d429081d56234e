//! The tables of depmod(8), and what they say is to be loaded for a device, in which order.

use nom::Parser;
use nom::bytes::complete::{is_not, tag};
use nom::character::complete::{char, space0, space1};
use nom::multi::{many0, separated_list0};
use nom::sequence::{delimited, preceded, separated_pair, terminated};
use std::collections::{BTreeMap, BTreeSet};

/// How deep modules may depend on each other before the tables count as broken.
const DEPTH: u32 = 64;

/// A module as the tables know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Module {
    /// Its file, relative to the folder of the tables.
    path: String,
    /// The names of those it needs.
    needs: Vec<String>,
    /// Those to be loaded before and after it, if they are there.
    before: Vec<String>,
    after: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    modules: BTreeMap<String, Module>,
    /// Patterns and the names of the modules, in the order of the table.
    aliases: Vec<(String, String)>,
    softs: BTreeMap<String, (Vec<String>, Vec<String>)>,
}

impl Tables {
    /// Reads the texts of `modules.dep`, `modules.alias` and `modules.softdep`. A line that makes no sense is left out.
    pub(super) fn parse(dep: &str, alias: &str, softdep: &str) -> Self {
        let mut tables = Self::default();
        for (path, needs) in dep.lines().filter_map(dependency) {
            let needs = needs.into_iter().map(name_of).collect();
            tables.modules.insert(name_of(path), Module { path: path.to_owned(), needs, ..Module::default() });
        }
        tables.aliases = alias
            .lines()
            .filter_map(alias_line)
            .map(|(pattern, module)| (underscored(pattern), underscored(module)))
            .collect();
        for (module, before, after) in softdep.lines().filter_map(soft_line) {
            let entry = tables.softs.entry(module).or_default();
            entry.0.extend(before);
            entry.1.extend(after);
        }
        for (name, (before, after)) in &tables.softs {
            if let Some(module) = tables.modules.get_mut(name) {
                (module.before, module.after) = (before.clone(), after.clone());
            }
        }
        tables
    }

    /// How many modules there are.
    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    /// The modules that say they can drive what calls itself `modalias`.
    pub(super) fn drivers(&self, modalias: &str) -> Vec<&str> {
        let modalias = underscored(modalias);
        let mut found: Vec<&str> = self
            .aliases
            .iter()
            .filter(|(pattern, _)| matches(pattern.as_bytes(), modalias.as_bytes()))
            .map(|(_, module)| module.as_str())
            .collect();
        found.extend(self.modules.get_key_value(&modalias).map(|(name, _)| name.as_str()));
        found.dedup();
        found
    }

    /// The files to load for a module, in this order: what it needs first. Empty for a module that is not there.
    pub(super) fn order(&self, module: &str) -> Vec<&str> {
        let mut order = Vec::new();
        self.walk(&underscored(module), &mut BTreeSet::new(), &mut order, DEPTH);
        order
    }

    fn walk<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<&'a str>, depth: u32) {
        let Some(module) = self.modules.get(name) else {
            // Soft dependencies may name what a module does, not the module.
            if depth > 0 && seen.insert(name.to_owned()) {
                self.drivers(name).into_iter().for_each(|driver| self.walk(driver, seen, order, depth - 1));
            }
            return;
        };
        if depth == 0 || !seen.insert(name.to_owned()) {
            return;
        }
        for before in &module.before {
            self.walk(before, seen, order, depth - 1);
        }
        // The table lists what is needed with the one to be loaded first at the end.
        for needed in module.needs.iter().rev() {
            self.walk(needed, seen, order, depth - 1);
        }
        order.push(&module.path);
        for after in &module.after {
            self.walk(after, seen, order, depth - 1);
        }
    }
}

type Failure<'a> = nom::error::Error<&'a str>;

/// `kernel/a.ko: kernel/b.ko kernel/c.ko`
fn dependency(line: &str) -> Option<(&str, Vec<&str>)> {
    let path = is_not::<_, _, Failure<'_>>(": \t");
    let needs = preceded(space0, separated_list0(space1, is_not(" \t")));
    separated_pair(path, char(':'), needs).parse(line).ok().map(|(_, line)| line)
}

/// `alias pci:v00008086d* e1000e`
fn alias_line(line: &str) -> Option<(&str, &str)> {
    let word = || is_not::<_, _, Failure<'_>>(" \t");
    preceded((tag("alias"), space1), separated_pair(word(), space1, word())).parse(line).ok().map(|(_, line)| line)
}

/// `softdep r8169 pre: realtek post: other`
fn soft_line(line: &str) -> Option<(String, Vec<String>, Vec<String>)> {
    let word = || is_not::<_, _, Failure<'_>>(" \t");
    let (_, (module, words)) =
        (delimited((tag("softdep"), space1), word(), space0), many0(terminated(word(), space0))).parse(line).ok()?;
    let (mut before, mut after, mut is_after) = (Vec::new(), Vec::new(), false);
    for word in words {
        match word {
            "pre:" => is_after = false,
            "post:" => is_after = true,
            name if is_after => after.push(underscored(name)),
            name => before.push(underscored(name)),
        }
    }
    Some((underscored(module), before, after))
}

/// The module in this file: `kernel/drivers/net/r8169-x.ko.zst` is `r8169_x`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    underscored(file.split_once(".ko").map_or(file, |(name, _)| name))
}

/// Hyphens and underscores are the same in names of modules.
fn underscored(name: &str) -> String {
    let mut in_set = false;
    let plain = |c: char| {
        in_set = (in_set || c == '[') && c != ']';
        if c == '-' && !in_set { '_' } else { c }
    };
    name.chars().map(plain).collect()
}

/// Shell patterns as fnmatch(3) knows them: `*`, `?`, `[a-f0]`. Takes time in proportion to both lengths at most.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => set(&pattern[p..], text[t]),
            Some(byte) => (*byte == text[t]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(len), _) => (p, t) = (p + len, t + 1),
            (None, Some((after, at))) => {
                star = Some((after, at + 1));
                (p, t) = (after, at + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The length of the set that `pattern` begins with, if `byte` is in it.
fn set(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().skip(2).position(|byte| *byte == b']')? + 2;
    let mut inside = &pattern[1..end];
    let negated = matches!(inside.first(), Some(b'!' | b'^'));
    if negated {
        inside = &inside[1..];
    }
    let mut found = false;
    while let Some((&first, rest)) = inside.split_first() {
        inside = rest;
        match rest {
            [b'-', last, after @ ..] => {
                found |= (first..=*last).contains(&byte);
                inside = after;
            }
            _ => found |= first == byte,
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEP: &str = "\
kernel/drivers/net/r8169.ko: kernel/drivers/net/phy/libphy.ko kernel/drivers/net/mdio_devres.ko
kernel/drivers/net/phy/realtek.ko: kernel/drivers/net/phy/libphy.ko
kernel/drivers/net/phy/libphy.ko:
kernel/drivers/net/mdio_devres.ko: kernel/drivers/net/phy/libphy.ko
kernel/drivers/scsi/sd_mod.ko: kernel/lib/crc-t10dif.ko
kernel/lib/crc-t10dif.ko.zst:
kernel/arch/x86/crypto/crct10dif-pclmul.ko:
no colon here
";
    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
alias scsi:t-0x00* sd_mod
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip[0-9]* usb-storage
alias crct10dif crct10dif-pclmul
nonsense
";
    const SOFT: &str = "\
# Soft dependencies extracted from modules themselves.
softdep r8169 pre: realtek missing
softdep crc-t10dif pre: crct10dif
softdep libphy post: crct10dif-pclmul
softdep
";

    fn tables() -> Tables {
        Tables::parse(DEP, ALIAS, SOFT)
    }

    #[test]
    fn a_device_finds_its_driver() {
        let tables = tables();
        assert_eq!(tables.drivers("pci:v000010ECd00008168sv00001043sd00008677bc02sc00i00"), ["r8169"]);
        assert_eq!(tables.drivers("scsi:t-0x00"), ["sd_mod"]);
        assert_eq!(tables.drivers("usb:v0951p1666d0110dc00dsc00dp00ic08isc06ip50in00"), ["usb_storage"]);
        assert_eq!(tables.drivers("pci:v000010ECd00008139"), Vec::<&str>::new());
        assert_eq!(tables.drivers("sd-mod"), ["sd_mod"], "a module's own name is one of its aliases");
        assert_eq!(tables.len(), 7);
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let tables = tables();
        let short: Vec<_> = tables.order("r8169").into_iter().map(name_of).collect();
        assert_eq!(short, ["libphy", "crct10dif_pclmul", "realtek", "mdio_devres", "r8169"]);
        assert_eq!(tables.order("no_such_module"), Vec::<&str>::new());
        let packed = ["kernel/arch/x86/crypto/crct10dif-pclmul.ko", "kernel/lib/crc-t10dif.ko.zst"];
        assert_eq!(tables.order("sd_mod")[..2], packed, "soft dependencies may be named by what they do");
    }

    #[test]
    fn modules_that_need_each_other_do_not_hang_the_machine() {
        let tables = Tables::parse("a.ko: b.ko\nb.ko: a.ko\n", "", "softdep a pre: a b\n");
        assert_eq!(tables.order("a"), ["b.ko", "a.ko"]);
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c*", "abcabc", true),
            ("a*c", "abcab", false),
            ("?b", "ab", true),
            ("?", "", false),
            ("[0-9a]x", "5x", true),
            ("[!0-9]x", "5x", false),
            ("[]x", "]x", false),
            ("[]]x", "]x", true),
            ("[-]", "-", true),
            ("[abc", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    /// The plainest way to say it.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            ([b'?', pattern @ ..], [_, text @ ..]) => naive(pattern, text),
            ([a, pattern @ ..], [b, text @ ..]) => a == b && naive(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_the_naive_way(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_table_makes_the_parser_panic(dep in "\\PC*", alias in "(alias [\\PC]* [\\PC]*\n)*", soft in "(softdep \\PC*\n)*") {
            let tables = Tables::parse(&dep, &alias, &soft);
            let _ = tables.drivers(&dep);
            let names: Vec<String> = tables.modules.keys().cloned().collect();
            names.iter().for_each(|name| prop_assert_str(&tables, name));
        }
    }

    fn prop_assert_str(tables: &Tables, name: &str) {
        assert!(!tables.order(name).is_empty());
    }
}
