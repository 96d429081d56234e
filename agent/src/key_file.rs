//! The keys that the command line names: the server's public one, and this agent's own secret one.

use slidecast_net::text::os_error_text;
use slidecast_proto::noise::{KeyError, PUBLIC_TAG, PublicKey, SecretKey};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A key file is one line; whatever is longer is none.
const MAX_KEY_FILE: u64 = 256;

/// A server key given as digits, or as the file that holds them. A secret key is refused: it has no business here. Files of
/// older versions do not say which half they hold; where a file of the same name with `.pub` stands beside and holds another
/// key, the named one is the secret.
pub(crate) fn read_server_key(text: &str) -> Result<PublicKey, String> {
    match text.parse() {
        Ok(key) => return Ok(key),
        // What was typed is not told again.
        Err(KeyError::Secret) => return Err(format!("--server-key: {}", KeyError::Secret)),
        Err(_) => {}
    }
    let (path, public) = (Path::new(text), PathBuf::from(format!("{text}.pub")));
    let path = if !path.exists() && public.exists() { public.as_path() } else { path };
    let wrong = |error: &dyn std::fmt::Display| format!("--server-key {}: {error}", path.display());
    let content = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let secret = || format!("--server-key {text}: {}: {text}.pub", KeyError::Secret);
    let key = content.trim().parse().map_err(|error| match error {
        KeyError::Secret if public.exists() => secret(),
        KeyError::Secret => wrong(&KeyError::Secret),
        _ => wrong(&"no public key; expected one line of 64 hexadecimal digits"),
    })?;
    let beside = std::fs::read_to_string(&public).ok().and_then(|content| content.trim().parse::<PublicKey>().ok());
    if path != public && !content.trim().starts_with(PUBLIC_TAG) && beside.is_some_and(|beside| beside != key) {
        return Err(secret());
    }
    Ok(key)
}

/// The secret key in this file.
///
/// # Errors
/// One line that names the file and says what is wrong with it.
pub(crate) fn read_own_key(path: &Path) -> Result<SecretKey, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("--key-file {}: {what}", path.display());
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text));
    read.map_err(|error| wrong(&os_error_text(&error)))?;
    text.trim().parse().map_err(|error: KeyError| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee01";

    #[test]
    fn a_key_is_taken_as_digits_or_as_a_file_with_or_without_its_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("old.pub"), format!("{KEY}\n")).unwrap();
        std::fs::write(path("new.pub"), format!("slidecast-public-key-v1:{KEY}\n")).unwrap();
        let key: PublicKey = KEY.parse().unwrap();
        let tagged = format!("slidecast-public-key-v1:{KEY}");
        for text in [KEY.to_owned(), tagged, path("old.pub"), path("new.pub"), path("new")] {
            assert_eq!(read_server_key(&text), Ok(key), "{text}");
        }
    }

    #[test]
    fn a_secret_key_is_refused_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let secret = "ff".repeat(32);
        std::fs::write(path("old"), format!("{secret}\n")).unwrap();
        std::fs::write(path("old.pub"), format!("{KEY}\n")).unwrap();
        for name in ["new", "alone"] {
            std::fs::write(path(name), format!("slidecast-secret-key-v1:{secret}\n")).unwrap();
        }
        std::fs::write(path("new.pub"), format!("slidecast-public-key-v1:{KEY}\n")).unwrap();
        for text in [path("old"), path("new"), path("alone"), format!("slidecast-secret-key-v1:{secret}")] {
            let line = read_server_key(&text).unwrap_err();
            assert!(line.contains("secret key") && !line.contains(&secret), "{line}");
        }
        assert!(read_server_key(&path("new")).unwrap_err().ends_with("new.pub"));
    }

    #[test]
    fn an_agent_may_have_a_key_of_its_own_and_that_is_a_secret_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let secret = SecretKey::generate().unwrap();
        std::fs::write(path("pc7"), format!("{}\n", *secret.to_line())).unwrap();
        std::fs::write(path("pc7.pub"), format!("{}\n", secret.public().to_line())).unwrap();
        assert_eq!(read_own_key(&path("pc7")), Ok(secret));
        let wrong = |name: &str| read_own_key(&path(name)).unwrap_err();
        assert!(wrong("pc7.pub").ends_with("pc7.pub: this is a public key; the secret one is meant"));
        assert!(wrong("none").contains("No such file"));
    }
}
