//! The thin binary: see `frazil::cli`.

/// glibc's heaps keep several times what is in use once threads hand large buffers to each other:
/// `behaviour::memory` peaked at 390 MiB with them and at 196 MiB with this.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    frazil::cli::main()
}
