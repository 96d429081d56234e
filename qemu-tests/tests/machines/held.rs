//! Machines on which nothing may be written, because their kernel command line was not understood.

use slidecast_lab::machine::Options;
use slidecast_lab::{Lab, compare};

use crate::Takes::One;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, SOON};

pub(crate) const TESTS: &[Test] = &[(
    "held::a_misspelt_word_on_the_kernel_command_line_keeps_the_disk_as_it_is_and_is_named_on_both_sides",
    One,
    misspelt,
)];

fn misspelt() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 1, &[]);
    let boot = fixtures.boot.kernel("slidecast.targets=serial=NOPE").unwrap();
    let mut machine = lab.machine(Options::new(boot, vec![fixtures.disk(&lab, "d")])).unwrap();
    machine.wait_for("slidecast: failed usage kernel command line: slidecast.targets: no such option", BOOT).unwrap();
    machine.wait_for("slidecast: holding", SOON).unwrap();
    // Among the lines of the node, and as the reason why it is refused.
    deploy.process.wait_for("slidecast.targets: no such option", BOOT).unwrap();
    deploy.process.wait_for("target-refused", SOON).unwrap();
    assert!(compare::data_ranges(&machine.options.disks[0].file).unwrap().is_empty(), "the disk was written");
    assert!(machine.is_on());
}
