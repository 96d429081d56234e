//! Patterns with `*` (any text) and `?` (any character), blind to the case of ASCII letters.

/// The whole of `text` is what `pattern` describes. Takes at most `pattern` times `text` steps.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: that star takes one character more.
    let mut retry = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some('*'), _) => {
                p += 1;
                retry = Some((p, t));
                continue;
            }
            (Some(wanted), Some(found)) if *wanted == '?' || wanted.eq_ignore_ascii_case(found) => {
                p += 1;
                t += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match retry {
            Some((after, from)) if from < text.len() => {
                (p, t) = (after, from + 1);
                retry = Some((after, t));
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, by the definition.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some((wanted, rest)) => text
                .split_first()
                .is_some_and(|(found, after)| (*wanted == '?' || wanted == found) && naive(rest, after)),
        }
    }

    #[test]
    fn stars_and_question_marks() {
        assert!(matches("", "") && matches("*", "") && matches("**", "abc"));
        assert!(matches("a*c?e", "abbcde") && matches("A?C", "aéc"));
        assert!(!matches("?", "") && !matches("a", "ab") && !matches("*a", "ab") && !matches("", "a"));
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }
    }
}
