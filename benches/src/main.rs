//! `slidecast-benches [NAME...]`: measures and prints a table.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use slidecast_benches::setup::Setup;
use slidecast_benches::table::Table;
use slidecast_benches::{
    boot, boot_size, cpu, create, import, incompressible, last_look, memory, redeploy, repair, system, workstation,
};
use slidecast_lab::{Result, privilege};

#[derive(Debug, Parser)]
#[command(name = "slidecast-benches", about = "The figures that SlideCast promises, beside peers in the same run")]
struct Cli {
    /// Which figures [default: all]
    names: Vec<Name>,
    /// Size of the incompressible image in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    #[command(flatten)]
    repair: repair::Options,
    #[command(flatten)]
    import: import::Options,
    #[command(flatten)]
    workstation: workstation::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// A Debian system on 100 Mbit/s links, N = 1, 4, 8, 16
    System,
    /// Random bytes on 1 Gbit/s links, N = 1, 4, 8
    Incompressible,
    /// What is read once more before the head is written, on 1 Gbit/s links
    LastLook,
    /// Processor time beside an mbuffer chain
    Cpu,
    /// Peak memory of agent and server
    Memory,
    /// Disks that hold an older image, N = 8
    Redeploy,
    /// What the others lose when nodes die, fall silent or become slow
    Repair,
    /// Creating images beside plain zstd
    Create,
    /// Creating images of qcow2, VHDX, VMDK and Clonezilla's folders beside a raw disk in between
    Import,
    /// Memory of each reader, of disks of 16 TiB
    ImportMemory,
    /// The disk of a workstation beside partclone and zstd
    Workstation,
    /// Power-on to a server and to done in virtual machines, by each way to boot
    Boot,
    /// Sizes of boot files, and the least memory that a machine needs
    BootSize,
}

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slidecast-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is the program's answer")]
fn measure(cli: &Cli) -> Result<()> {
    privilege::enter()?;
    let setup = Setup::new(cli.mib << 20)?;
    let mut table = Table::default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, load before {}", load.split(' ').next().unwrap_or("?"));
    for name in Name::value_variants() {
        if !cli.names.is_empty() && !cli.names.contains(name) {
            continue;
        }
        match name {
            Name::System => system::run(&setup, &mut table)?,
            Name::Incompressible => incompressible::run(&setup, &mut table)?,
            Name::LastLook => last_look::run(&setup, &mut table)?,
            Name::Cpu => cpu::run(&setup, &mut table)?,
            Name::Memory => memory::run(&setup, &mut table)?,
            Name::Redeploy => redeploy::run(&setup, &mut table)?,
            Name::Repair => repair::run(&setup, &cli.repair, &mut table)?,
            Name::Create => create::run(&setup, &mut table)?,
            Name::Import => import::run(&setup, &cli.import, &mut table)?,
            Name::ImportMemory => import::run_memory(&setup, &mut table)?,
            Name::Workstation => workstation::run(&setup, &cli.workstation, &mut table)?,
            Name::Boot => boot::run(&setup, &mut table)?,
            Name::BootSize => boot_size::run(&setup, &mut table)?,
        }
    }
    table.close();
    Ok(())
}
