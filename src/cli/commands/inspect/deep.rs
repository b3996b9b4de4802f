//! What `inspect --deep` adds.

use crate::cli::output::{Output, table};
use crate::error::escape;
use crate::inspect::Deep;
use crate::inspect::packages::{Database, Package};

/// The further facts of a system, for people.
pub(super) fn text(deep: &Deep, output: Output) -> String {
    let mut text = String::new();
    for database in &deep.packages {
        text.push_str(&output.bold(&format!("packages ({})\n", title(database))));
        let rows: Vec<_> = database.packages.iter().map(row).collect();
        text.push_str(&table(&rows));
        if let Some(problem) = &database.problem {
            text.push_str(&format!("note: packages may be missing: {}\n", escape(problem)));
        }
    }
    text
}

fn title(database: &Database) -> String {
    let format =
        database.backend.map_or(database.format.to_owned(), |backend| format!("{}, {backend}", database.format));
    format!("{} in {}: {format}", database.packages.len(), database.path)
}

fn row(package: &Package) -> (String, String) {
    let epoch = package.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = package.release.as_ref().map(|release| format!("-{release}")).unwrap_or_default();
    let arch = package.arch.as_ref().map(|arch| format!(" {arch}")).unwrap_or_default();
    let state = package.state.as_ref().map(|state| format!(" ({state})")).unwrap_or_default();
    let version = format!("{epoch}{}{release}{arch}{state}", package.version);
    (format!("  {}", escape(&package.name)), escape(&version))
}
