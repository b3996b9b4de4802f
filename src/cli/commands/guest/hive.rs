//! `guest hive`: the registry of a Windows.

use std::io::Write;

use jiff::Timestamp as Instant;
use serde_json::{Value as Json, json};

use super::{Inside, Lines};
use crate::cli::args::guest::HiveArgs;
use crate::cli::commands::Context;
use crate::cli::output::table;
use crate::error::{Error, Kind, Result, escape};
use crate::fs::{Timestamp, Tree};
use crate::hive::{Data, Hive, Key, Value, absent, export, type_name};
use crate::inspect::windows::{self, open_hive};

pub(super) fn run(args: &HiveArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let Some(wanted) = args.hive.as_deref() else { return list(&named(&inside)?, context) };
    let (tree, path) = place(&inside, wanted)?;
    let hive = open_hive(&tree, &path)?.ok_or_else(|| super::absent(&path))?;
    let key = find(&hive, args.path.as_deref().unwrap_or_default())?;
    if args.export {
        let mut lines = Export(Lines::new());
        let prefix = prefix(wanted, args.path.as_deref().unwrap_or_default());
        export(&hive, key, &prefix, &mut lines)?;
        return lines.0.finish();
    }
    if let Some(name) = &args.value {
        let value = key.value(name)?.ok_or_else(|| absent(name))?;
        return context.output.result(&value_json(&value)?, &plain(&value.data()?));
    }
    show(&path, args.path.as_deref().unwrap_or_default(), &hive, &key, context)
}

/// The text of a .reg file, which comes in whole lines.
struct Export(Lines);

impl Write for Export {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.data(buf).map(|()| buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The hives of the guest's Windows: name, tree, path.
fn named(inside: &Inside) -> Result<Vec<(String, Tree, String)>> {
    let mut found = Vec::new();
    let machine = &inside.guest.machine;
    for system in &inside.guest.systems {
        let Some(facts) = system.facts.windows() else { continue };
        for (name, volume, path) in windows::hives(machine, &system.root, &facts.system_root)? {
            let fs = machine.volumes.get(volume).and_then(|volume| volume.fs.as_ref());
            found.extend(fs.map(|fs| (name, Tree::new(std::sync::Arc::clone(fs)), path)));
        }
    }
    Ok(found)
}

/// The tree and path of the hive that is called `wanted`, or that is the file `wanted`.
fn place(inside: &Inside, wanted: &str) -> Result<(Tree, String)> {
    if wanted.contains('/') {
        let path = windows::resolve(&inside.tree, wanted)?.ok_or_else(|| super::absent(wanted))?;
        return Ok((inside.tree.clone(), path));
    }
    let hives = named(inside)?;
    let names: Vec<String> = hives.iter().map(|(name, ..)| name.clone()).collect();
    let found = hives.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(wanted));
    found.map(|(_, tree, path)| (tree, path)).ok_or_else(|| {
        Error::new(Kind::NotFound, "hive.name", "the guest has no such registry hive").found(wanted).hint(
            match names.is_empty() {
                true => "no Windows was found; a hive can be named by its path in the guest too".to_owned(),
                false => format!("it has {}; any other can be named by its path in the guest", names.join(", ")),
            },
        )
    })
}

/// The key at `path`. `CurrentControlSet`, which is there only while Windows runs, is the control set that it would be.
fn find<'a>(hive: &'a Hive, path: &str) -> Result<Key<'a>> {
    const CURRENT: &str = "CurrentControlSet";
    if let Some(key) = hive.key(path)? {
        return Ok(key);
    }
    let path_of = path.trim_start_matches('\\');
    if let Some((first, rest)) = path_of.split_at_checked(CURRENT.len())
        && first.eq_ignore_ascii_case(CURRENT)
        && (rest.is_empty() || rest.starts_with('\\'))
        && let Some(select) = hive.key("Select")?
        && let Some(number) = select.number("Current")?
        && let Some(key) = hive.key(&format!("ControlSet{number:03}{rest}"))?
    {
        return Ok(key);
    }
    Err(absent(path))
}

fn list(hives: &[(String, Tree, String)], context: &Context) -> Result<()> {
    if hives.is_empty() {
        return Err(Error::new(Kind::NotFound, "hive.name", "no Windows with a registry was found"));
    }
    let rows: Vec<(String, String)> = hives.iter().map(|(name, _, path)| (escape(name), escape(path))).collect();
    let list: Vec<Json> = hives.iter().map(|(name, _, path)| json!({ "name": name, "path": path })).collect();
    context.output.result(&json!({ "hives": list }), &table(&rows))
}

fn show(file: &str, path: &str, hive: &Hive, key: &Key<'_>, context: &Context) -> Result<()> {
    let state = windows::state_name(hive.facts().state);
    let (mut subkeys, mut values) = (Vec::new(), Vec::new());
    for subkey in key.subkeys()? {
        subkeys.push(subkey?.name().to_owned());
    }
    let mut rows = Vec::new();
    for value in key.values()? {
        let value = value?;
        if context.output.is_json() {
            values.push(value_json(&value)?);
        } else {
            let name = if value.name().is_empty() { "(default)".to_owned() } else { escape(value.name()) };
            rows.push((format!("  {name}"), format!("{}  {}", kind(value.kind()), short(&value.data()?))));
        }
    }
    if context.output.is_json() {
        let value = json!({
            "file": file,
            "state": state,
            "key": path,
            "name": key.name(),
            "written": time(key.written()),
            "class": key.class()?,
            "subkeys": subkeys,
            "values": values,
        });
        return context.output.json(&value);
    }
    let mut text = vec![("file".to_owned(), format!("{} ({state})", escape(file)))];
    text.push(("key".to_owned(), escape(if path.is_empty() { key.name() } else { path })));
    text.extend(time(key.written()).map(|time| ("written".to_owned(), time)));
    text.extend(key.class()?.map(|class| ("class".to_owned(), escape(&class))));
    let mut text = table(&text);
    if !subkeys.is_empty() {
        text.push_str(&context.output.bold("subkeys\n"));
        subkeys.iter().for_each(|name| text.push_str(&format!("  {}\n", escape(name))));
    }
    if !rows.is_empty() {
        text.push_str(&context.output.bold("values\n"));
        text.push_str(&table(&rows));
    }
    context.output.text(&text)
}

fn value_json(value: &Value<'_>) -> Result<Json> {
    let data = value.data()?;
    let hex: String = data.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({
        "name": value.name(),
        "type": value.kind(),
        "type_name": type_name(value.kind()),
        "data": hex,
        "text": data.text(),
        "texts": (value.kind() == 7).then(|| data.texts()),
        "number": data.number(),
    }))
}

fn kind(kind: u32) -> String {
    type_name(kind).map_or_else(|| format!("{kind:#x}"), str::to_owned)
}

/// What a value holds, for a table.
fn short(data: &Data) -> String {
    /// Bytes that are shown of those without a meaning.
    const SHOWN: usize = 32;
    if let Some(number) = data.number() {
        return format!("{number} ({number:#x})");
    }
    if let Some(text) = data.text() {
        return escape(&text);
    }
    if data.kind == 7 {
        return data.texts().iter().map(|text| escape(text)).collect::<Vec<_>>().join(" | ");
    }
    let shown: String = data.bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if data.bytes.len() > SHOWN { format!("{shown}… ({} bytes)", data.bytes.len()) } else { shown }
}

/// What a value holds, by itself: a text, lines of texts, a number, or bytes in hexadecimal.
fn plain(data: &Data) -> String {
    match (data.number(), data.text(), data.kind) {
        (Some(number), ..) => number.to_string(),
        (_, Some(text), _) => escape(&text),
        (_, _, 7) => data.texts().iter().map(|text| escape(text)).collect::<Vec<_>>().join("\n"),
        _ => data.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Where Windows has the key, for an export.
fn prefix(hive: &str, key: &str) -> String {
    let name = hive.rsplit('/').next().unwrap_or(hive).to_ascii_uppercase();
    let root = match name.as_str() {
        "BCD" => "HKEY_LOCAL_MACHINE\\BCD00000000".to_owned(),
        "DEFAULT" => "HKEY_USERS\\.DEFAULT".to_owned(),
        _ if name.starts_with("NTUSER") => "HKEY_CURRENT_USER".to_owned(),
        _ if name.starts_with("USRCLASS") => "HKEY_CURRENT_USER\\Software\\Classes".to_owned(),
        _ => format!("HKEY_LOCAL_MACHINE\\{name}"),
    };
    match key.trim_matches('\\') {
        "" => root,
        key => format!("{root}\\{key}"),
    }
}

fn time(time: Timestamp) -> Option<String> {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    Instant::new(time.seconds, nanoseconds).ok().map(|instant| instant.to_string())
}
