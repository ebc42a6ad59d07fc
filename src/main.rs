//! The thin binary: see `frazil::cli`.

fn main() -> std::process::ExitCode {
    frazil::cli::main()
}
