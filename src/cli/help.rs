//! `hyper2kvm help`: explains an error code or prints a command's help; man pages and completions from the same definition.

use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::output::Output;
use crate::error::{Error, Kind, Result, codes, explain};

/// Explains `topic`, or lists all commands and codes.
pub(super) fn run(topic: Option<&str>, output: Output) -> Result<()> {
    let Some(topic) = topic else { return overview(output) };
    if let Some(text) = explain(topic) {
        let json = serde_json::json!({ "code": topic, "explanation": text });
        return output.result(&json, &format!("{}: {text}", output.bold(topic)));
    }
    let mut cli = Cli::command();
    cli.build();
    match cli.find_subcommand_mut(topic) {
        Some(command) => output.line(&command.render_long_help().to_string()),
        None => Err(Error::new(Kind::Usage, "usage.topic", "no such command or error code")
            .found(topic)
            .hint("`hyper2kvm help` lists them")),
    }
}

fn overview(output: Output) -> Result<()> {
    if output.is_json() {
        let codes: Vec<_> =
            codes().iter().map(|(code, text)| serde_json::json!({ "code": code, "explanation": text })).collect();
        return output.line(&serde_json::json!({ "codes": codes }).to_string());
    }
    output.line(&Cli::command().render_long_help().to_string())?;
    output.line("Error codes, each explained by `hyper2kvm help CODE`:")?;
    let codes: Vec<&str> = codes().iter().map(|(code, _)| *code).collect();
    output.line(&format!("  {}", codes.join("  ")))
}

/// Prints a shell's completion script.
pub(super) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "hyper2kvm", &mut std::io::stdout());
}

/// Writes a man page for the program and one for each command into `dir`.
pub(super) fn man(dir: &Path) -> Result<()> {
    let write_error = |e| Error::write("writing man pages", e).path(dir);
    std::fs::create_dir_all(dir).map_err(write_error)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(write_error)
}
