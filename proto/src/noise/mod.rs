//! The encrypted channel that control messages travel in: keys, the preface of each side, then the Noise protocol.
//!
//! The agent speaks first. Both sides send a preface of 16 bytes that any version understands, so that a wrong version, a
//! wrong mode and a busy server have a name instead of being noise. Then `Noise_XK_25519_ChaChaPoly_BLAKE2s` runs, where
//! the agent knows the server's key beforehand, or `Noise_NN_25519_ChaChaPoly_BLAKE2s` if `--insecure` was given on both
//! sides: encrypted, but with nobody in particular. Both prefaces are the prologue, so changing one breaks the handshake.
//!
//! Source: The Noise Protocol Framework, revision 34.

mod channel;
mod keys;
mod preface;

pub use channel::{Channel, ChannelError, MAX_QUEUED, MAX_UNSENT, SendError};
pub use keys::{KeyError, NoRandomness, PUBLIC_TAG, PublicKey, SECRET_TAG, SecretKey};
pub use preface::{End, Mode, VERSION};
