//! What `inspect` prints about a Windows.

use super::text::Rows;
use crate::cli::output::{Output, table};
use crate::inspect::windows::{Account, Hibernation, Hotfix, Task};
use crate::inspect::{Windows, WindowsDeep};
use crate::pipeline::guest::Guest;

pub(super) fn add(guest: &Guest, facts: &Windows, rows: &mut Rows) {
    let product = &facts.product;
    let build = product.build.as_ref().map(|build| match product.revision {
        Some(revision) => format!("build {build}.{revision}"),
        None => format!("build {build}"),
    });
    let system: Vec<String> = [product.name.clone(), product.release.clone(), build].into_iter().flatten().collect();
    rows.add("system", Some(system.join(", ")).filter(|system| !system.is_empty()));
    rows.add("edition", product.edition.as_ref());
    rows.add("osinfo", product.osinfo.as_ref());
    rows.add("host name", facts.hostname.as_ref());
    rows.add("domain", facts.domain.as_ref());
    rows.add("architecture", facts.arch.as_ref());
    rows.add("directory", Some(&facts.system_root));
    rows.add("control set", facts.control_set.as_ref());
    for loader in facts.boot.iter().flat_map(|boot| &boot.loaders).filter(|loader| loader.is_offered) {
        rows.add("boot entry", loader.description.as_ref().or(loader.path.as_ref()));
    }
    for adapter in &facts.adapters {
        let name = adapter.name.as_deref().or(adapter.description.as_deref()).unwrap_or(&adapter.id);
        let addresses: Vec<&str> =
            adapter.addresses.iter().chain(&adapter.ipv6_addresses).map(String::as_str).collect();
        rows.add("interface", Some(format!("{name} {}", addresses.join(" ")).trim_end()));
    }
    for drive in &facts.drives {
        let volume = drive.volume.and_then(|volume| guest.machine.volumes.get(volume));
        let place = volume.map_or("elsewhere".to_owned(), |volume| guest.machine.name_of(volume));
        rows.add("drive", Some(format!("{}: {place}", drive.letter)));
    }
    rows.add("Secure Boot", facts.secure_boot.map(|on| if on { "on" } else { "off" }));
    rows.add("TPM", facts.tpm);
    for (hypervisor, service) in &facts.tools {
        rows.add("tools", Some(format!("{hypervisor}: {service}")));
    }
    facts.antivirus.iter().for_each(|name| rows.add("antivirus", Some(name)));
    facts.group_policies.iter().for_each(|name| rows.add("group policy", Some(name)));
    rows.add("applications", Some(facts.applications.len().to_string()));
    rows.add("services", Some(facts.services.len().to_string()));
    if facts.power.hibernation != Hibernation::Absent {
        rows.add("hibernation", Some(format!("{:?}", facts.power.hibernation).to_lowercase()));
    }
    for hive in facts.hives.iter().filter(|hive| hive.state != "clean") {
        rows.add("hive", Some(format!("{} ({})", hive.path, hive.state)));
    }
    facts.notes.iter().for_each(|note| rows.add("note", Some(note)));
}

/// The further facts of a Windows.
pub(super) fn deep(deep: &WindowsDeep, output: Output) -> String {
    let mut rows = Rows::default();
    deep.users.iter().for_each(|user| rows.add("user", Some(user_text(user))));
    // What Windows has itself is not told here, but with --json.
    let own = |task: &&Task| !task.path.starts_with("\\Microsoft\\") && task.enabled != Some(false);
    deep.tasks.iter().filter(own).for_each(|task| rows.add("task", Some(task_text(task))));
    let is_there = |fix: &&Hotfix| matches!(fix.state, "installed" | "permanent");
    deep.hotfixes.iter().filter(is_there).for_each(|fix| rows.add("hotfix", Some(hotfix_text(fix))));
    for user in &deep.user_applications {
        let names: Vec<&str> = user.applications.iter().map(|application| application.name.as_str()).collect();
        rows.add("applications", Some(format!("{}: {}", user.profile, names.join(", "))));
    }
    for hive in deep.hives.iter().filter(|hive| hive.state != "clean") {
        rows.add("hive", Some(format!("{} ({})", hive.path, hive.state)));
    }
    deep.notes.iter().for_each(|note| rows.add("note", Some(note)));
    format!("{}{}", output.bold("further\n"), table(&rows.0))
}

fn user_text(user: &Account) -> String {
    let state = [(user.administrator, "administrator"), (user.disabled, "disabled"), (user.locked, "locked out")];
    let words: Vec<&str> = state.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    let words = if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
    format!("{} ({}){words}", user.name, user.rid)
}

fn task_text(task: &Task) -> String {
    let by = if task.triggers.is_empty() { String::new() } else { format!(", by {}", task.triggers.join(" or ")) };
    let what = if task.actions.is_empty() { String::new() } else { format!(": {}", task.actions.join("; ")) };
    format!("{}{what}{by}", task.path)
}

fn hotfix_text(fix: &Hotfix) -> String {
    fix.version.as_ref().map_or_else(|| fix.id.clone(), |version| format!("{} {version}", fix.id))
}
