//! The program: everything is in [`threepid::cli`].

use std::{io, process::ExitCode};

fn main() -> ExitCode {
    threepid::cli::main(std::env::args_os(), &mut io::stdout().lock())
}
