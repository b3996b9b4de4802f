//! Names that files know (parent pointers): each is an attribute of the file, whose value is the directory.

use super::Writer;
use crate::error::{Result, escape_bytes};
use crate::fs::Inode;
use crate::fs::xfs::attr::{PARENT, Raw};
use crate::fs::xfs::corrupt;
use crate::fs::xfs::log::Pointers;
use crate::fs::xfs::node::Node;

/// A name in a directory, as the file under it knows it (`xfs_parent_rec`).
pub(super) fn pointer(dir: &Node, name: &[u8]) -> Raw {
    let value = [&dir.number.to_be_bytes()[..], &dir.generation().to_be_bytes()].concat();
    Raw { flags: PARENT, name: name.to_vec(), value }
}

impl Writer<'_> {
    /// Has `node` forget a name, learn one, or both, if files know their names here. `node` is not stored.
    pub(super) fn change_pointer(&mut self, node: &mut Node, old: Option<&Raw>, new: Option<Raw>) -> Result<()> {
        if !self.sb.features.has_parent() {
            return Ok(());
        }
        let mut all = self.view().raw_attributes(node)?;
        if let Some(old) = old {
            let unknown =
                || corrupt(format!("inode {} does not know its name `{}`", node.number, escape_bytes(&old.name)));
            let at = all.iter().position(|raw| raw == old).ok_or_else(unknown)?;
            all.remove(at);
        }
        all.extend(new);
        self.put_attributes(node, &all)
    }

    /// Finishes a change of what a file knows, however far it went.
    pub(super) fn finish_pointers(&mut self, Pointers { inode, generation, old, new }: Pointers) -> Result<()> {
        let mut node = self.view().inode(Inode(inode))?;
        if node.generation() != generation || !self.sb.features.has_parent() {
            return Err(corrupt(format!("inode {inode} is not the one that the log names")));
        }
        let mut all = self.view().raw_attributes(&node)?;
        all.retain(|raw| [&old, &new].iter().all(|changed| changed.as_ref() != Some(raw)));
        all.extend(new);
        self.put_attributes(&mut node, &all)?;
        self.put_node(&mut node)
    }
}
