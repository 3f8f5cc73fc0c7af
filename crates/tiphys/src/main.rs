//! The one binary: every component is a subcommand. Flags and wiring stand here, logic does not.

mod admission;
mod agent;
mod apiserver;
mod audit;
mod auth;
mod auth_flags;
mod bootstrap_token;
mod cli;
mod connections;
mod control_plane;
mod encryption_reload;
mod features;
mod follow;
mod foreground;
mod health;
mod held_sockets;
mod images;
mod join;
mod kernel_settings;
mod limits;
mod manifests;
mod metric_flags;
mod node;
mod node_flags;
mod places;
mod reload;
mod remote;
mod renew;
mod reset;
mod running;
mod runtime_socket;
mod server;
mod service_flags;
mod services;
mod settings;
mod settled_flags;
mod simulator;
mod snapshot;
mod store;
mod token_keys;
mod tracing_flags;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: allocator::Mimalloc = allocator::Mimalloc;

/// Whether it is printing that failed, because nobody reads any more.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let root = error.root_cause().downcast_ref::<std::io::Error>();
    root.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn main() -> std::process::ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        // Whoever reads what is printed has seen enough.
        Err(error) if is_closed_pipe(&error) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
