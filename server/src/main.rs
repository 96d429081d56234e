//! Entry point.
fn main() -> std::process::ExitCode {
    slidecast_server::run(std::env::args_os().collect()).into()
}
