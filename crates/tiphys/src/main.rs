//! The one binary: every component is a subcommand. Flags and wiring stand here, logic does not.

mod apiserver;
mod audit;
mod auth;
mod auth_flags;
mod cli;
mod control_plane;
mod encryption_reload;
mod features;
mod follow;
mod health;
mod images;
mod kernel_settings;
mod limits;
mod node;
mod places;
mod reset;
mod running;
mod runtime_socket;
mod server;
mod services;
mod settings;
mod simulator;
mod snapshot;
mod store;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
