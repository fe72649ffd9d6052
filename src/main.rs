//! The `sandbox` program: see the library.

/// A run lives for milliseconds: musl's own allocator spends a hundred system calls in it on getting and
/// giving back pages.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    sandbox::cli::main()
}
