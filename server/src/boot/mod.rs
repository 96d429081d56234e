//! Booting machines from the network: `slidecast boot-server`, and `deploy --boot`.
//!
//! Debian's dnsmasq answers DHCP and serves the first stage over TFTP, from a configuration that [`config`] writes and as a
//! child that [`child`] watches. Kernel and initramfs go over HTTP, which [`http`] serves: iPXE is much quicker over TCP.
//! Three kinds of firmware are led to the same kernel:
//!
//! | firmware | first stage | then |
//! | --- | --- | --- |
//! | BIOS PXE | `undionly.kpxe` (iPXE) over TFTP | `boot.ipxe`, `vmlinuz`, `initramfs.img` over HTTP |
//! | UEFI PXE | `snponly.efi` (iPXE) over TFTP, or the UKI itself | the same over HTTP, or nothing more |
//! | UEFI HTTP Boot | `slidecast.efi` (UKI) over HTTP | nothing more |
//!
//! Where we own the net, [`router`] sends the router advertisement that iPXE waits for.

mod agents;
mod booted;
mod card;
mod child;
mod command;
mod config;
mod error;
mod event;
mod files;
mod http;
mod log_lines;
mod ports;
mod range;
mod router;
mod script;
mod server;
mod stage;
mod uki;

pub use agents::Agents;
pub use booted::BootedMachines;
pub use command::run;
pub use config::UefiStage;
pub use error::BootError;
pub use event::{Architecture, BootEvent, Firmware, Mac, Protocol, Tell};
pub use range::{BootMode, DhcpRange};
pub use server::{BootServer, Options};

/// The port on which boot files are served over HTTP.
pub const DEFAULT_HTTP_PORT: u16 = 7580;
