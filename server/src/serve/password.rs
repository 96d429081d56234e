//! Passwords, as they are kept: hashed by Argon2id with a salt, which takes some 20 MiB and some 20 ms.

use super::problem::Problem;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use slidecast_proto::hex;

/// The shortest and the longest password, in characters and bytes.
const SHORTEST: usize = 10;
const LONGEST: usize = 256;
const SALT: usize = 16;
const HASH: usize = 32;

/// The cost of a hash; kept with it, so that it can be raised later.
const COST: Cost = Cost { memory: 19 * 1024, passes: 2 };

#[derive(Clone, Copy, Debug)]
struct Cost {
    /// In KiB.
    memory: u32,
    passes: u32,
}

/// Refuses a password that is too short or too long.
pub(super) fn check(password: &str) -> Result<(), Problem> {
    if password.chars().count() < SHORTEST || password.len() > LONGEST {
        return Err(Problem::bad(format!("password: expected {SHORTEST} to {LONGEST} characters")));
    }
    Ok(())
}

/// What is kept of a password. Takes its time.
pub(super) fn hash(password: &str) -> Result<String, Problem> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let hash = compute(password, &salt, COST).ok_or_else(|| Problem::system("hashing the password failed"))?;
    Ok(format!("argon2id:{}:{}:{}:{}", COST.memory, COST.passes, hex::text(&salt), hex::text(&hash)))
}

/// Whether this is the password. Takes its time; without anything kept just as long, so that nobody learns which names there are.
pub(super) fn fits(password: &str, kept: Option<&str>) -> bool {
    let parsed = kept.and_then(|kept| {
        let parts: Vec<&str> = kept.split(':').collect();
        let ["argon2id", memory, passes, salt, hash] = parts[..] else { return None };
        let cost = Cost { memory: memory.parse().ok()?, passes: passes.parse().ok()? };
        Some((cost, hex::bytes(salt)?, hex::bytes(hash)?))
    });
    let (cost, salt, wanted) = parsed.unwrap_or((COST, vec![0; SALT], Vec::new()));
    let hash = if password.len() > LONGEST { None } else { compute(password, &salt, cost) };
    // Comparing hashes of both tells nothing by how long it takes.
    hash.is_some_and(|hash| wanted.len() == HASH && blake3::hash(&hash) == blake3::hash(&wanted))
}

fn compute(password: &str, salt: &[u8], cost: Cost) -> Option<[u8; HASH]> {
    let params = Params::new(cost.memory, cost.passes, 1, Some(HASH)).ok()?;
    let (mut hash, mut memory) = ([0; HASH], vec![Block::default(); params.block_count()]);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, &mut memory).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_what_was_kept_of_it_and_nothing_else() {
        let kept = hash("correct horse").unwrap();
        assert!(fits("correct horse", Some(&kept)));
        assert!(!fits("correct horsE", Some(&kept)));
        assert!(!fits("correct horse", None));
        assert!(!fits("", Some("argon2id:8:1:00:")) && !fits("x", Some("plain")));
        assert_ne!(hash("correct horse").unwrap(), kept, "each has a salt of its own");
        assert!(check("short").is_err() && check("long enough").is_ok() && check(&"x".repeat(300)).is_err());
    }
}
