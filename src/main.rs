//! The `sandbox` program: see the library.

#[global_allocator]
static HEAP: sandbox::sys::heap::Heap = sandbox::sys::heap::Heap::new();

fn main() -> std::process::ExitCode {
    sandbox::cli::main()
}
