//! Large letters, five by five, for people who stand at the other end of the rack.

/// How many rows a letter has, and how many columns with the gap behind it.
pub(super) const ROWS: usize = 5;
pub(super) const COLUMNS: usize = 6;

/// The rows of each letter, the leftmost point in the highest of five bits.
const LETTERS: [(char, [u8; ROWS]); 37] = [
    ('A', [0b01110, 0b10001, 0b11111, 0b10001, 0b10001]),
    ('B', [0b11110, 0b10001, 0b11110, 0b10001, 0b11110]),
    ('C', [0b01111, 0b10000, 0b10000, 0b10000, 0b01111]),
    ('D', [0b11110, 0b10001, 0b10001, 0b10001, 0b11110]),
    ('E', [0b11111, 0b10000, 0b11110, 0b10000, 0b11111]),
    ('F', [0b11111, 0b10000, 0b11110, 0b10000, 0b10000]),
    ('G', [0b01111, 0b10000, 0b10011, 0b10001, 0b01111]),
    ('H', [0b10001, 0b10001, 0b11111, 0b10001, 0b10001]),
    ('I', [0b01110, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('J', [0b00111, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('K', [0b10001, 0b10010, 0b11100, 0b10010, 0b10001]),
    ('L', [0b10000, 0b10000, 0b10000, 0b10000, 0b11111]),
    ('M', [0b10001, 0b11011, 0b10101, 0b10001, 0b10001]),
    ('N', [0b10001, 0b11001, 0b10101, 0b10011, 0b10001]),
    ('O', [0b01110, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('P', [0b11110, 0b10001, 0b11110, 0b10000, 0b10000]),
    ('Q', [0b01110, 0b10001, 0b10101, 0b10010, 0b01101]),
    ('R', [0b11110, 0b10001, 0b11110, 0b10010, 0b10001]),
    ('S', [0b01111, 0b10000, 0b01110, 0b00001, 0b11110]),
    ('T', [0b11111, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('U', [0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('V', [0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('W', [0b10001, 0b10001, 0b10101, 0b11011, 0b10001]),
    ('X', [0b10001, 0b01010, 0b00100, 0b01010, 0b10001]),
    ('Y', [0b10001, 0b01010, 0b00100, 0b00100, 0b00100]),
    ('Z', [0b11111, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('0', [0b01110, 0b10011, 0b10101, 0b11001, 0b01110]),
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b11110, 0b00001, 0b01110, 0b10000, 0b11111]),
    ('3', [0b11110, 0b00001, 0b01110, 0b00001, 0b11110]),
    ('4', [0b10010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b11110]),
    ('6', [0b01110, 0b10000, 0b11110, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00010, 0b00100, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b01110, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b01111, 0b00001, 0b01110]),
    ('%', [0b11001, 0b11010, 0b00100, 0b01011, 0b10011]),
];

/// The rows of `text` in large letters, each point `scale` rows high and `scale` columns wide. What has no letter is a gap.
pub(super) fn rows(text: &str, scale: usize) -> Vec<String> {
    let row = |row: usize| {
        let points = text.chars().flat_map(|c| {
            let bits = LETTERS.iter().find(|(letter, _)| *letter == c).map_or(0, |(_, rows)| rows[row]);
            (0..COLUMNS).map(move |column| column < 5 && bits & (16 >> column) != 0)
        });
        points.map(|point| if point { "\u{2588}" } else { " " }.repeat(scale)).collect::<String>()
    };
    (0..ROWS).flat_map(|at| std::iter::repeat_n(row(at), scale)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn letters_are_as_wide_and_high_as_they_should_be_and_differ() {
        let (bar, point) = (" \u{2588}\u{2588}\u{2588}  ", "  \u{2588}   ");
        assert_eq!(rows("I", 1), [bar, point, point, point, bar]);
        let large = rows("A7", 2);
        assert!(large.len() == 10 && large.iter().all(|row| row.chars().count() == 24));
        let shapes: BTreeSet<_> = LETTERS.iter().map(|(_, rows)| rows).collect();
        assert_eq!(shapes.len(), LETTERS.len());
    }
}
