//! The texts that we write for the machines: the kernel's command line, and the script that iPXE runs.

use std::net::SocketAddrV4;

/// Words about the server are replaced, not repeated.
const OURS: [&str; 2] = ["slidecast.server", "slidecast.key"];

/// The kernel command line `words` with `more` at its end; what `more` says anew goes.
pub(super) fn command_line(words: &str, more: &[String]) -> String {
    if more.is_empty() {
        return words.to_owned();
    }
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let kept = words.split(' ').filter(|word| !word.is_empty() && !OURS.contains(&name(word).as_str()));
    kept.map(str::to_owned).chain(more.iter().cloned()).collect::<Vec<_>>().join(" ")
}

/// The script that loads kernel and initramfs from `server`. It tries for some time, then lets the firmware go on with
/// whatever it would boot next: a machine must not hang because a server has gone.
///
/// `netX` is the card that iPXE opened last, the one that this script came by. Older kernels need to be told of the
/// initramfs by name when iPXE starts them on UEFI.
pub(super) fn ipxe(server: SocketAddrV4, command_line: &str) -> String {
    // iPXE reads `${`; a kernel has no use for it.
    let words = command_line.replace("${", "$");
    format!(
        "#!ipxe\n\
         set tries:int32 0\n\
         :again\n\
         imgfree\n\
         kernel http://{server}/vmlinuz {words} initrd=initramfs.img BOOTIF=01-${{netX/mac:hexhyp}} || goto failed\n\
         initrd http://{server}/initramfs.img || goto failed\n\
         boot || goto failed\n\
         :failed\n\
         inc tries\n\
         iseq ${{tries}} 5 && goto giveup ||\n\
         echo SlideCast: http://{server} gives no boot files; trying again in 5 s\n\
         sleep 5\n\
         goto again\n\
         :giveup\n\
         echo SlideCast: giving up; the firmware goes on\n\
         exit 1\n"
    )
}

/// The script for a machine that is through: the firmware goes on with what comes next, as after a failure. UEFI would
/// stop at its menu after a success.
pub(super) const GO_ON: &str =
    "#!ipxe\necho SlideCast: this machine is through; it boots from its disk\nsleep 1\nexit 1\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_deployment_replace_those_of_the_image() {
        let more = ["slidecast.server=10.0.0.1:7531".to_owned(), "slidecast.key=cd".to_owned()];
        let line = command_line("console=ttyS0  slidecast.key=ab quiet slidecast.keys=1", &more);
        assert_eq!(line, "console=ttyS0 quiet slidecast.keys=1 slidecast.server=10.0.0.1:7531 slidecast.key=cd");
        assert_eq!(command_line("a  b", &[]), "a  b");
    }

    #[test]
    fn the_script_loads_kernel_and_initramfs_and_does_not_hang() {
        let script = ipxe("10.0.0.1:7580".parse().unwrap(), "quiet slidecast.key=ab${x}");
        let expected = "#!ipxe
set tries:int32 0
:again
imgfree
kernel http://10.0.0.1:7580/vmlinuz quiet slidecast.key=ab$x} initrd=initramfs.img BOOTIF=01-${netX/mac:hexhyp} || goto failed
initrd http://10.0.0.1:7580/initramfs.img || goto failed
boot || goto failed
:failed
inc tries
iseq ${tries} 5 && goto giveup ||
echo SlideCast: http://10.0.0.1:7580 gives no boot files; trying again in 5 s
sleep 5
goto again
:giveup
echo SlideCast: giving up; the firmware goes on
exit 1
";
        assert_eq!(script, expected);
    }
}
