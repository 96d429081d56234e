//! Entry point.
fn main() -> std::process::ExitCode {
    slidecast_sim::cli::run(std::env::args().skip(1))
}
