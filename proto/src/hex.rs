//! Bytes as hexadecimal digits.

use core::fmt;

/// Writes two digits for each byte, in lower case.
///
/// # Errors
/// Whatever `to` says.
pub fn write(to: &mut dyn fmt::Write, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).try_for_each(|digit| {
        let digit = DIGITS[usize::from(digit)];
        to.write_char(char::from(digit))
    })
}

/// Two digits for each byte, in lower case.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    // A string takes everything.
    let _ = write(&mut text, bytes);
    text
}

/// The byte that two digits stand for.
#[must_use]
pub fn byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

/// Fills `bytes`; nothing, if `digits` are not two for each byte. What was read before a false digit stays in `bytes`.
#[must_use]
pub fn fill(bytes: &mut [u8], digits: &str) -> Option<()> {
    let pairs = digits.as_bytes().chunks_exact(2);
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (to, pair) in bytes.iter_mut().zip(pairs) {
        *to = byte([pair[0], pair[1]])?;
    }
    Some(())
}

/// As many bytes as wanted, from two digits each.
#[must_use]
pub fn parse<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes, digits).map(|()| bytes)
}

/// The bytes that stand in `digits`, however many.
#[must_use]
pub fn bytes(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; digits.len() / 2];
    fill(&mut bytes, digits).map(|()| bytes)
}

/// Writes a hardware address, with colons.
///
/// # Errors
/// Whatever `to` says.
pub fn write_mac(to: &mut dyn fmt::Write, mac: [u8; 6]) -> fmt::Result {
    for (at, byte) in mac.into_iter().enumerate() {
        if at > 0 {
            to.write_char(':')?;
        }
        write(to, &[byte])?;
    }
    Ok(())
}

/// Reads a hardware address with this separator.
#[must_use]
pub fn parse_mac(text: &str, separator: char) -> Option<[u8; 6]> {
    let mut parts = text.split(separator);
    let mut mac = [0; 6];
    for byte in &mut mac {
        [*byte] = parse(parts.next()?)?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_as_the_bytes_that_were_written() {
        let bytes: Vec<u8> = (0..=255).collect();
        let digits = text(&bytes);
        assert!(digits.starts_with("000102") && digits.ends_with("fdfeff"));
        assert_eq!(parse::<256>(&digits).unwrap()[..], bytes);
        assert_eq!((super::bytes(&digits).unwrap(), super::bytes("012")), (bytes, None));
        assert_eq!(parse(&digits.to_uppercase()), parse::<256>(&digits));
    }

    #[test]
    fn other_lengths_and_other_characters_are_no_bytes() {
        for text in ["", "0", "000", "00000", "+100", " 100", "0x00", "gg00", "é00", "00é"] {
            assert_eq!(parse::<2>(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_hardware_address_has_six_parts_of_two_digits() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0xAB];
        let mut text = String::new();
        write_mac(&mut text, mac).unwrap();
        assert_eq!(text, "52:54:00:12:34:ab");
        assert_eq!(parse_mac(&text, ':'), Some(mac));
        assert_eq!(parse_mac(&text.replace(':', "-"), '-'), Some(mac));
        for wrong in ["52:54:00:12:34", "52:54:00:12:34:ab:00", "52:54:0:12:34:ab", "+2:54:00:12:34:ab", ""] {
            assert_eq!(parse_mac(wrong, ':'), None, "{wrong}");
        }
    }
}
