//! The text of `sfdisk --dump`, of old and new versions.

use super::super::ImportFault;
use super::{SavedTable, WHAT, boot_records, gpt};
use core::ops::Range;

/// No longer text is read.
const MAX_BYTES: usize = 1 << 20;
const MAX_PARTITIONS: usize = 256;

/// A partition table in words. Places in sectors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Script {
    pub(in super::super) is_gpt: bool,
    /// The identifier of the disk: 32 bits, or a GUID.
    pub(super) id: String,
    /// The device that the table was on.
    pub(in super::super) device: String,
    /// In bytes.
    pub(in super::super) sector: u32,
    pub(super) last_usable: Option<u64>,
    pub(super) first_usable: Option<u64>,
    pub(in super::super) rows: Vec<Row>,
}

/// One line about a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Row {
    pub(in super::super) number: u32,
    /// The name of its device without `/dev/`.
    pub(in super::super) device: String,
    pub(in super::super) sectors: Range<u64>,
    /// Its type: hexadecimal digits, or a GUID.
    pub(in super::super) kind: String,
    pub(super) bootable: bool,
    pub(super) uuid: String,
    pub(super) name: String,
    pub(super) attributes: String,
}

impl Row {
    /// The type of a partition of an MBR.
    pub(super) fn mbr_kind(&self) -> Option<u8> {
        u8::from_str_radix(&self.kind, 16).ok()
    }

    /// Whether it only holds other partitions.
    pub(in super::super) fn is_extended(&self) -> bool {
        matches!(self.mbr_kind(), Some(0x05 | 0x0F | 0x85))
    }
}

impl Script {
    /// Reads the text.
    pub(in super::super) fn parse(text: &str) -> Result<Self, ImportFault> {
        let damaged = |line: usize| ImportFault::Damaged { what: WHAT, offset: line as u64 };
        if text.len() > MAX_BYTES {
            return Err(ImportFault::TooLarge { what: WHAT });
        }
        let mut script = Self { sector: 512, ..Self::default() };
        for line in text.lines() {
            let at = line.as_ptr() as usize - text.as_ptr() as usize;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("Warning") {
                continue;
            }
            if let Some((device, rest)) = line.split_once(" : ").filter(|(device, _)| device.starts_with('/')) {
                let row = Row::parse(device.trim(), rest).ok_or_else(|| damaged(at))?;
                if !row.sectors.is_empty() {
                    script.rows.push(row);
                }
                continue;
            }
            let Some((key, value)) = line.split_once(':') else { return Err(damaged(at)) };
            script.set(key.trim(), value.trim()).ok_or_else(|| damaged(at))?;
        }
        let mut numbers: Vec<_> = script.rows.iter().map(|row| row.number).collect();
        numbers.sort_unstable();
        if script.rows.is_empty()
            || script.rows.len() > MAX_PARTITIONS
            || numbers.windows(2).any(|two| two[0] == two[1])
        {
            return Err(damaged(0));
        }
        Ok(script)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "label" => self.is_gpt = if value == "dos" { false } else { (value == "gpt").then_some(true)? },
            "label-id" => value.clone_into(&mut self.id),
            "device" => value.clone_into(&mut self.device),
            "unit" => return (value == "sectors").then_some(()),
            "sector-size" => self.sector = value.parse().ok().filter(|sector| matches!(sector, 512 | 4096))?,
            "first-lba" => self.first_usable = Some(value.parse().ok()?),
            "last-lba" => self.last_usable = Some(value.parse().ok()?),
            // What else there may be (table-length, grain) changes nothing.
            _ => {}
        }
        Some(())
    }

    /// The table itself.
    pub(in super::super) fn table(&self) -> Result<SavedTable, ImportFault> {
        if self.is_gpt { gpt::from_script(self) } else { boot_records(self, None, None) }
    }
}

impl Row {
    fn parse(device: &str, rest: &str) -> Option<Self> {
        let digits = device.len() - device.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let number = device[device.len() - digits..].parse().ok().filter(|number| *number > 0)?;
        let device = device.strip_prefix("/dev/").unwrap_or(device).replace('/', "-");
        let mut row = Self { number, device, ..Self::default() };
        let (mut start, mut size) = (None, None);
        for field in fields(rest) {
            let (key, value) = field.split_once('=').map_or((field, ""), |(key, value)| (key.trim(), value.trim()));
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            match key {
                "start" => start = Some(value.parse::<u64>().ok()?),
                "size" => size = Some(value.parse::<u64>().ok()?),
                "type" | "Id" => value.clone_into(&mut row.kind),
                "bootable" => row.bootable = true,
                "uuid" => value.clone_into(&mut row.uuid),
                "name" => value.clone_into(&mut row.name),
                "attrs" => value.clone_into(&mut row.attributes),
                _ => {}
            }
        }
        let start = start?;
        row.sectors = start..start.checked_add(size?)?;
        Some(row)
    }
}

/// The fields of a line, which commas outside of quotes separate.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_texts_are_read() {
        let new = "label: gpt\nlabel-id: 9C5B\ndevice: /dev/nvme0n1\nunit: sectors\nfirst-lba: 34\nlast-lba: 409566\nsector-size: 512\n\n\
                   /dev/nvme0n1p1 : start=        2048, size=      204800, type=C12A, uuid=AA, name=\"EFI, the first\", attrs=\"GUID:63\"\n";
        let script = Script::parse(new).unwrap();
        let [row] = &script.rows[..] else { panic!("{script:?}") };
        assert!(script.is_gpt && script.last_usable == Some(409_566));
        assert_eq!((row.number, row.device.as_str(), row.sectors.clone()), (1, "nvme0n1p1", 2048..206_848));
        assert_eq!((row.name.as_str(), row.attributes.as_str()), ("EFI, the first", "GUID:63"));
        let old = "# partition table of /dev/sda\nunit: sectors\n\n/dev/sda1 : start=     2048, size=   204800, Id=83, bootable\n\
                   /dev/sda2 : start=        0, size=        0, Id= 0\n";
        let script = Script::parse(old).unwrap();
        assert_eq!((script.is_gpt, script.rows.len(), script.rows[0].bootable), (false, 1, true));
        assert_eq!(script.rows[0].mbr_kind(), Some(0x83));
    }

    #[test]
    fn what_cannot_be_a_table_is_refused() {
        let row = "/dev/sda1 : start=1, size=9, type=83\n";
        for text in [
            "",
            "no table",
            "label: sun\n",
            "sector-size: 100\n",
            "/dev/sda1 : start=1\n",
            "/dev/sda : start=1, size=2\n",
        ] {
            assert!(
                Script::parse(text).is_err() && Script::parse(&[row, text].concat()).is_err() != text.is_empty(),
                "{text}"
            );
        }
        assert!(Script::parse(&row.repeat(2)).is_err());
        assert!(Script::parse("/dev/sda1 : start=9, size=18446744073709551615, type=83\n").is_err());
    }
}
