//! The program on each node: finds the server, receives blocks, passes them on, writes and proves them.

use std::process::ExitCode;

fn main() -> ExitCode {
    slidecast_agent::program::main()
}
