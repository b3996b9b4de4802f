//! What `inspect` prints about a Windows.

use super::text::Rows;
use crate::inspect::Windows;
use crate::inspect::windows::Hibernation;
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
        rows.add("interface", Some(format!("{name} {}", adapter.addresses.join(" ")).trim_end()));
    }
    for drive in &facts.drives {
        let volume = drive.volume.and_then(|volume| guest.machine.volumes.get(volume));
        let place = volume.map_or("elsewhere".to_owned(), |volume| guest.machine.name_of(volume));
        rows.add("drive", Some(format!("{}: {place}", drive.letter)));
    }
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
