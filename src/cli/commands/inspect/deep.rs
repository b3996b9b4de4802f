//! What `inspect --deep` adds.

use super::text::Rows;
use crate::cli::output::{Output, table};
use crate::error::escape;
use crate::inspect::accounts::User;
use crate::inspect::packages::{Database, Package};
use crate::inspect::systemd::{UnitState, Units};
use crate::inspect::{Deep, Identity, KernelDrivers};

/// The further facts of a system, for people.
pub(super) fn text(deep: &Deep, output: Output) -> String {
    let mut rows = Rows::default();
    identity(&deep.identity, &mut rows);
    units(deep.units.as_ref(), &mut rows);
    deep.users.iter().for_each(|user| rows.add("user", may_log_in(user).then(|| user_text(user))));
    let administrators = &deep.privileges.administrators;
    rows.add("may be root", (!administrators.is_empty()).then(|| administrators.join(" ")));
    for kernel in &deep.drivers {
        let name = kernel.release.as_ref().unwrap_or(&kernel.kernel);
        let verdict = if kernel.boots_on_virtio { "boots on virtio".to_owned() } else { missing(kernel) };
        rows.add("drivers", Some(format!("{name}: {verdict}")));
    }
    let changes = &deep.package_history.changes;
    rows.add("last change", changes.back().map(|change| format!("{} {} {}", change.time, change.action, change.name)));
    let last = deep.package_history.transactions.iter().rev().find_map(|it| Some((it, it.command.as_ref()?)));
    rows.add("last command", last.map(|(it, command)| format!("{} {command}", it.begin)));
    deep.package_history.notes.iter().chain(&deep.notes).for_each(|note| rows.add("note", Some(note)));
    let mut text = format!("{}{}", output.bold("further\n"), table(&rows.0));
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

fn identity(identity: &Identity, rows: &mut Rows) {
    rows.add("machine id", identity.machine_id.as_ref());
    rows.add("called", identity.pretty_hostname.as_ref());
    rows.add("time zone", identity.time_zone.as_ref());
    rows.add("locale", identity.locale.get("LANG"));
    rows.add("keyboard", identity.keymap.as_ref().or(identity.keyboard.as_ref()));
    let Some(cloud) = &identity.cloud_init else { return };
    rows.add(
        "cloud-init",
        Some(match &cloud.disabled_by {
            Some(path) => format!("switched off by {path}"),
            None if cloud.datasources.is_empty() => "looks for data everywhere".to_owned(),
            None => format!("looks for data of {}", cloud.datasources.join(", ")),
        }),
    );
}

fn units(units: Option<&Units>, rows: &mut Rows) {
    let Some(units) = units else { return };
    rows.add("target", units.default_target.as_ref());
    let enabled = units.units.iter().filter(|unit| unit.state == UnitState::Enabled).map(|unit| unit.name.as_str());
    let enabled: Vec<&str> = enabled.collect();
    rows.add("enabled", Some(enabled.join(" ")).filter(|names| !names.is_empty()));
}

/// Whether a password or a key lets a user in.
fn may_log_in(user: &User) -> bool {
    user.authorized_keys > 0 || user.password == "set" || user.password == "empty"
}

fn user_text(user: &User) -> String {
    let groups = if user.groups.is_empty() { String::new() } else { format!(" in {}", user.groups.join(", ")) };
    let keys = if user.authorized_keys == 0 { String::new() } else { format!(", {} keys", user.authorized_keys) };
    format!("{} ({}){groups}: password {}{keys}", user.name, user.uid, user.password)
}

fn missing(kernel: &KernelDrivers) -> String {
    format!("its initramfs lacks {}", kernel.missing.join(", "))
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
