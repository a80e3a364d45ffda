//! The program of ours inside the database's pod; see [`sqledge_operator::guard`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sqledge_operator::guard::main(std::env::args_os().skip(1))
}
