//! The code that is shown at a machine and known at the server: equal on both screens only if both are ends of the same control
//! link.
//!
//! It comes of the handshake's hash and of a share that either end draws. The server commits itself to its share before it learns
//! the agent's, and says it after that. Whoever makes two handshakes, one with each end, has to give away one share before the
//! other end has said its own: it can make the two codes equal by luck only, once in 887,503,681 links, however fast it computes.
//! (A hash of the handshake alone would not do: the end that speaks last could try keys until six letters fit.)

use core::fmt;
use core::str::FromStr;

/// How many letters a code has.
pub(crate) const CODE_LEN: usize = 6;
/// No I, L, O, 0 or 1: people read them for each other.
const LETTERS: [u8; 31] = *b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";

/// What one end adds to the code: random, used on one link only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub [u8; 16]);

/// What the server says of its [`Share`] before it says the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment(pub [u8; 32]);

impl Commitment {
    /// The server's on the link with this handshake hash.
    #[must_use]
    pub fn to(share: Share, handshake: &[u8; 32]) -> Self {
        Self(derive("slidecast 2026 approval commitment", handshake, &[share]))
    }
}

/// Six letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code([u8; CODE_LEN]);

impl Code {
    /// The code of the link with this handshake hash.
    #[must_use]
    pub fn of(handshake: &[u8; 32], agent: Share, server: Share) -> Self {
        let bytes = derive("slidecast 2026 approval code", handshake, &[agent, server]);
        let mut rest = u64::from_le_bytes(bytes[..8].try_into().expect("the first eight of 32 bytes"));
        // 2^64 codes over 31^6: none is likelier than another by more than 1 in 2^34.
        Self(core::array::from_fn(|_| {
            let letter = LETTERS[usize::try_from(rest % 31).expect("below 31")];
            rest /= 31;
            letter
        }))
    }
}

fn derive(purpose: &'static str, handshake: &[u8; 32], shares: &[Share]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(handshake);
    for share in shares {
        hasher.update(&share.0);
    }
    *hasher.finalize().as_bytes()
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

/// A text is no code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCode {
    /// It has so many characters.
    Length(usize),
    /// No code has this character.
    Letter(char),
}

impl fmt::Display for BadCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a code has {CODE_LEN} letters and digits, not {len}"),
            Self::Letter(letter) => write!(f, "no code has a {letter:?}"),
        }
    }
}

impl core::error::Error for BadCode {}

impl FromStr for Code {
    type Err = BadCode;

    /// As somebody types it: small letters are large ones, spaces and hyphens do not count.
    fn from_str(text: &str) -> Result<Self, BadCode> {
        let typed = || text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase());
        let len = typed().count();
        if len != CODE_LEN {
            return Err(BadCode::Length(len));
        }
        let mut code = [0; CODE_LEN];
        for (place, letter) in code.iter_mut().zip(typed()) {
            *place = u8::try_from(letter).ok().filter(|c| LETTERS.contains(c)).ok_or(BadCode::Letter(letter))?;
        }
        Ok(Self(code))
    }
}

/// The agent's end: it has heard that it is not approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applicant {
    handshake: [u8; 32],
    commitment: Commitment,
    share: Share,
}

/// The server's share is not the one that it committed itself to: somebody looked for a code that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongShare;

impl Applicant {
    /// The agent draws `share` on the link with this handshake hash, and says it.
    #[must_use]
    pub fn new(handshake: [u8; 32], commitment: Commitment, share: Share) -> Self {
        Self { handshake, commitment, share }
    }

    /// The server has said its share: the code to show.
    ///
    /// # Errors
    /// [`WrongShare`]: no code is to be shown on this link.
    pub(crate) fn on_share(&self, server: Share) -> Result<Code, WrongShare> {
        let kept = Commitment::to(server, &self.handshake) == self.commitment;
        if kept { Ok(Code::of(&self.handshake, self.share, server)) } else { Err(WrongShare) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_a_commitment_are_frozen() {
        let (agent, server) = (Share([1; 16]), Share([2; 16]));
        assert_eq!(Code::of(&[7; 32], agent, server).to_string(), "RGMGAP");
        let start: Vec<_> = Commitment::to(server, &[7; 32]).0[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(start.concat(), "046c4dfe");
    }

    #[test]
    fn both_ends_of_one_link_have_one_code_and_every_part_of_it_counts() {
        let (handshake, agent, server) = ([7; 32], Share([1; 16]), Share([2; 16]));
        let applicant = Applicant::new(handshake, Commitment::to(server, &handshake), agent);
        let code = Code::of(&handshake, agent, server);
        assert_eq!(applicant.on_share(server), Ok(code));
        assert_ne!(Code::of(&[8; 32], agent, server), code);
        assert_ne!(Code::of(&handshake, Share([3; 16]), server), code);
        assert_ne!(Code::of(&handshake, agent, Share([3; 16])), code);
    }

    #[test]
    fn a_server_that_changes_its_share_gets_no_code_shown() {
        let handshake = [7; 32];
        let applicant = Applicant::new(handshake, Commitment::to(Share([2; 16]), &handshake), Share([1; 16]));
        assert_eq!(applicant.on_share(Share([3; 16])), Err(WrongShare));
        let elsewhere = Applicant::new([8; 32], Commitment::to(Share([2; 16]), &handshake), Share([1; 16]));
        assert_eq!(
            elsewhere.on_share(Share([2; 16])),
            Err(WrongShare),
            "nor one that passes on another server's words"
        );
    }

    #[test]
    fn a_code_is_understood_as_people_type_it() {
        let code: Code = "ABC234".parse().unwrap();
        assert_eq!(" abc-234 \n".parse(), Ok(code));
        assert_eq!("ab c2 34".parse(), Ok(code));
        assert_eq!(code.to_string().parse(), Ok(code));
        assert_eq!("ABC23".parse::<Code>(), Err(BadCode::Length(5)));
        assert_eq!("ABC2345".parse::<Code>(), Err(BadCode::Length(7)));
        assert_eq!("".parse::<Code>(), Err(BadCode::Length(0)));
        for letter in "IiLlOo01\u{e4}!".chars() {
            let upper = letter.to_ascii_uppercase();
            assert_eq!(format!("ABC23{letter}").parse::<Code>(), Err(BadCode::Letter(upper)));
        }
    }
}
