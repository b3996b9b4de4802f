//! Names: added to directories and removed from them, in whatever form the directory has or then needs.

use super::Writer;
use super::data::{Name, Shape, address_in};
use super::fork::{Body, Map};
use super::index::{Index, NO_BLOCK};
use super::short::Short;
use crate::disk::bytes::{long, size};
use crate::error::{Error, Result};
use crate::fs::FileKind;
use crate::fs::xfs::map::Extent;
use crate::fs::xfs::node::{Fork, Node};
use crate::fs::xfs::{block, corrupt};
use crate::limits;

/// A directory that has blocks.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    pub(super) number: u64,
    pub(super) map: Map,
    pub(super) size: u64,
}

impl Dir {
    /// Whether there is anything at block `logical`.
    pub(super) fn has_block(&self, logical: u64) -> bool {
        self.map.extents.iter().any(|extent| extent.clip(logical, logical.saturating_add(1)).is_some())
    }
}

/// The kind of file as directories have it.
pub(super) fn ftype_of(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
    }
}

impl Writer<'_> {
    pub(super) fn dir_shape(&self) -> Shape {
        Shape {
            len: self.sb.dir_block_len(),
            is_v5: self.sb.has_crc(),
            has_ftype: self.sb.features.has_ftype(),
            ignores_case: self.sb.features.has_ascii_ci(),
        }
    }

    /// Makes `node` an empty directory in `parent`.
    pub(super) fn init_dir(&mut self, node: &mut Node, parent: u64) -> Result<()> {
        let attr = self.body(node, Fork::Attr)?;
        let bytes = Short::new(parent, Vec::new()).bytes(self.dir_shape()).unwrap_or_default();
        node.set_size(long(bytes.len()));
        self.put_bodies(node, Body::Local(bytes), attr)
    }

    /// Adds a name, which must not be there. `node` is not stored.
    pub(super) fn add_name(&mut self, node: &mut Node, name: Name) -> Result<()> {
        let shape = self.dir_shape();
        match self.body(node, Fork::Data)? {
            Body::Local(bytes) => {
                let mut short = Short::parse(&bytes, shape)?;
                short.push(name, shape);
                let names = short.names(node.number);
                if self.put_short(node, short)? { Ok(()) } else { self.put_names_out(node, &names) }
            }
            Body::Mapped(map) => {
                let mut dir = Dir { number: node.number, map, size: node.size() };
                let first = self.dir_block(&dir, 0)?;
                if shape.is_one_block(&first) {
                    let mut names = shape.names(&first)?;
                    names.push(name);
                    return self.put_names(node, dir, &names);
                }
                let mut index = self.index(&dir)?;
                self.insert_name(&mut dir, &mut index, &name)?;
                self.finish(node, dir, index)
            }
            _ => Err(no_dir(node)),
        }
    }

    /// Removes a name, which must be there. `node` is not stored.
    pub(super) fn remove_name(&mut self, node: &mut Node, name: &[u8]) -> Result<()> {
        let shape = self.dir_shape();
        let missing = || corrupt(format!("directory {} lost a name", node.number));
        match self.body(node, Fork::Data)? {
            Body::Local(bytes) => {
                let mut short = Short::parse(&bytes, shape)?;
                let at = short.entries.iter().position(|(_, other)| other.name == name).ok_or_else(missing)?;
                short.entries.remove(at);
                self.put_short(node, short).map(drop)
            }
            Body::Mapped(map) => {
                let mut dir = Dir { number: node.number, map, size: node.size() };
                let first = self.dir_block(&dir, 0)?;
                if shape.is_one_block(&first) {
                    let mut names = shape.names(&first)?;
                    let at = names.iter().position(|other| other.name == name).ok_or_else(missing)?;
                    names.remove(at);
                    return self.put_fewer(node, dir, names);
                }
                let mut index = self.index(&dir)?;
                let (number, at) = self.find_name(&dir, &index, name)?.ok_or_else(missing)?;
                let mut bytes = self.dir_block(&dir, number.wrapping_shl(self.sb.dirblklog))?;
                shape.remove(&mut bytes, at)?;
                if !index.remove((shape.hash(name), address_in(number, shape.len, at))) {
                    return Err(missing());
                }
                self.after_removal(&mut dir, &mut index, number, bytes)?;
                if shape.header().saturating_add(index.count().saturating_mul(16)) <= shape.len {
                    let names = self.all_names(&dir, &index)?;
                    if shape.one_block_len(&names) <= shape.len {
                        return self.put_fewer(node, dir, names);
                    }
                }
                self.finish(node, dir, index)
            }
            _ => Err(no_dir(node)),
        }
    }

    /// Puts another inode under a name that is there, or another directory under `..`.
    pub(super) fn redirect(&mut self, node: &mut Node, name: &[u8], inode: u64) -> Result<()> {
        let shape = self.dir_shape();
        match self.body(node, Fork::Data)? {
            Body::Local(bytes) if name == b".." => {
                let mut short = Short::parse(&bytes, shape)?;
                short.parent = inode;
                let names = short.names(node.number);
                if self.put_short(node, short)? { Ok(()) } else { self.put_names_out(node, &names) }
            }
            Body::Mapped(map) => {
                let mut dir = Dir { number: node.number, map, size: node.size() };
                let mut bytes = self.dir_block(&dir, 0)?;
                let at = shape.find(&bytes, name)?;
                let at = at.ok_or_else(|| corrupt(format!("directory {} does not know its parent", node.number)))?;
                Shape::redirect(&mut bytes, at, inode);
                self.put_dir_block(&mut dir, 0, bytes)
            }
            _ => Err(no_dir(node)),
        }
    }

    /// All names of a directory in its inode.
    pub(super) fn short_names(&self, node: &Node) -> Result<Vec<Name>> {
        match self.body(node, Fork::Data)? {
            Body::Local(bytes) => Ok(Short::parse(&bytes, self.dir_shape())?.names(node.number)),
            _ => Err(no_dir(node)),
        }
    }

    /// Moves the names of a directory in its inode to blocks.
    pub(super) fn put_names_out(&mut self, node: &mut Node, names: &[Name]) -> Result<()> {
        self.put_names(node, Dir { number: node.number, map: Map::default(), size: 0 }, names)
    }

    /// The inode that a directory has under `..`.
    pub(super) fn parent_of(&self, node: &Node) -> Result<u64> {
        let names = match self.body(node, Fork::Data)? {
            Body::Local(_) => self.short_names(node)?,
            Body::Mapped(map) => {
                let dir = Dir { number: node.number, map, size: node.size() };
                self.dir_shape().names(&self.dir_block(&dir, 0)?)?
            }
            _ => return Err(no_dir(node)),
        };
        names.iter().find(|name| name.name == b"..").map(|name| name.inode).ok_or_else(|| no_dir(node))
    }

    /// Puts a directory into its inode if it has room there.
    fn put_short(&mut self, node: &mut Node, short: Short) -> Result<bool> {
        let attr = self.body(node, Fork::Attr)?;
        let Some(bytes) = short.bytes(self.dir_shape()) else { return Ok(false) };
        let len = long(bytes.len());
        let data = Body::Local(bytes);
        if self.fork_offset(node, &data, &attr).is_none() {
            return Ok(false);
        }
        node.set_size(len);
        self.put_bodies(node, data, attr)?;
        Ok(true)
    }

    /// Stores `names`, `.` and `..` among them, in the smallest form.
    fn put_fewer(&mut self, node: &mut Node, dir: Dir, names: Vec<Name>) -> Result<()> {
        let parent = names.iter().find(|name| name.name == b"..").map(|name| name.inode);
        let parent = parent.ok_or_else(|| no_dir(node))?;
        let others = names.iter().filter(|name| !matches!(&name.name[..], b"." | b"..")).cloned().collect();
        let map = dir.map.clone();
        if self.put_short(node, Short::new(parent, others))? {
            return self.drop_map(node.number, Fork::Data, map);
        }
        self.put_names(node, dir, &names)
    }

    /// Stores `names` in one block, or in blocks with an index.
    fn put_names(&mut self, node: &mut Node, mut dir: Dir, names: &[Name]) -> Result<()> {
        let shape = self.dir_shape();
        if shape.one_block_len(names) <= shape.len {
            self.cut(&mut dir, self.dir_blocks())?;
            self.put_dir_block(&mut dir, 0, shape.one_block(names)?)?;
            dir.size = long(shape.len);
            return self.put_dir(node, dir);
        }
        let most = shape.len.saturating_sub(shape.header());
        let mut used = 0_usize;
        let fits = |name: &&Name| {
            used = used.saturating_add(shape.entry_len(name.name.len()));
            used <= most
        };
        let first: Vec<Name> = names.iter().take_while(fits).cloned().collect();
        self.cut(&mut dir, self.dir_blocks())?;
        let (bytes, mut leaf) = shape.first_block(&first)?;
        leaf.sort_unstable();
        let mut index = Index { leaves: vec![leaf], bests: vec![shape.best(&bytes)] };
        self.put_dir_block(&mut dir, 0, bytes)?;
        for name in names.get(first.len()..).unwrap_or_default() {
            self.insert_name(&mut dir, &mut index, name)?;
        }
        self.finish(node, dir, index)
    }

    /// Puts a name into a directory block that has room, or a new one.
    fn insert_name(&mut self, dir: &mut Dir, index: &mut Index, name: &Name) -> Result<()> {
        let shape = self.dir_shape();
        let needed = shape.entry_len(name.name.len());
        let has_room = |best: &u16| *best != NO_BLOCK && usize::from(*best) >= needed;
        let (number, mut bytes) = match index.bests.iter().position(has_room) {
            Some(number) => (number, self.dir_block(dir, long(number).wrapping_shl(self.sb.dirblklog))?),
            None => {
                let hole = index.bests.iter().position(|best| *best == NO_BLOCK).unwrap_or(index.bests.len());
                if dir.has_block(long(hole).wrapping_shl(self.sb.dirblklog)) {
                    return Err(corrupt(format!("directory {} has a block that its index does not know", dir.number)));
                }
                (hole, shape.empty()?)
            }
        };
        let end = long(number).saturating_add(1).saturating_mul(long(shape.len));
        if end > limits::MAX_XFS_DIR {
            return Err(Error::limit("xfs.limit", format!("directory {} would be too large", dir.number)));
        }
        let at = shape.insert(&mut bytes, name)?;
        let at = at.ok_or_else(|| corrupt(format!("directory {} has less room than it says", dir.number)))?;
        if number >= index.bests.len() {
            index.bests.push(NO_BLOCK);
        }
        if let Some(best) = index.bests.get_mut(number) {
            *best = shape.best(&bytes);
        }
        index.insert((shape.hash(&name.name), address_in(long(number), shape.len, at)));
        self.put_dir_block(dir, long(number).wrapping_shl(self.sb.dirblklog), bytes)
    }

    /// Stores directory block `number`, from which a name was removed, or frees it.
    fn after_removal(&mut self, dir: &mut Dir, index: &mut Index, number: u64, bytes: Vec<u8>) -> Result<()> {
        let shape = self.dir_shape();
        let first = number.wrapping_shl(self.sb.dirblklog);
        let best = if shape.is_empty(&bytes) && number > 0 {
            self.unmap(dir, first, self.dir_blocks())?;
            NO_BLOCK
        } else {
            let best = shape.best(&bytes);
            self.put_dir_block(dir, first, bytes)?;
            best
        };
        if let Some(known) = index.bests.get_mut(size(number)) {
            *known = best;
        }
        while index.bests.last() == Some(&NO_BLOCK) {
            index.bests.pop();
        }
        Ok(())
    }

    fn finish(&mut self, node: &mut Node, mut dir: Dir, index: Index) -> Result<()> {
        dir.size = long(index.bests.len()).saturating_mul(long(self.sb.dir_block_len()));
        self.put_index(&mut dir, index)?;
        self.put_dir(node, dir)
    }

    fn put_dir(&mut self, node: &mut Node, dir: Dir) -> Result<()> {
        let attr = self.body(node, Fork::Attr)?;
        node.set_size(dir.size);
        self.put_bodies(node, Body::Mapped(dir.map), attr)
    }

    /// The directory block that has `name`, and the place in it.
    fn find_name(&self, dir: &Dir, index: &Index, name: &[u8]) -> Result<Option<(u64, usize)>> {
        let shape = self.dir_shape();
        for address in index.addresses(shape.hash(name)) {
            let offset = u64::from(address) << 3;
            let number = offset.checked_div(long(shape.len)).unwrap_or(0);
            let at = size(offset.checked_rem(long(shape.len)).unwrap_or(0));
            let bytes = self.dir_block(dir, number.wrapping_shl(self.sb.dirblklog))?;
            if shape.entry(&bytes, at)?.name == name {
                return Ok(Some((number, at)));
            }
        }
        Ok(None)
    }

    fn all_names(&self, dir: &Dir, index: &Index) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for (number, best) in (0_u64..).zip(&index.bests) {
            if *best != NO_BLOCK {
                let bytes = self.dir_block(dir, number.wrapping_shl(self.sb.dirblklog))?;
                names.extend(self.dir_shape().names(&bytes)?);
            }
        }
        Ok(names)
    }

    /// The pieces in which the directory block at block `logical` lies: place in bytes and length.
    fn pieces_of(&self, dir: &Dir, logical: u64) -> Result<Vec<(u64, usize)>> {
        let end = logical.saturating_add(self.dir_blocks());
        let mut pieces = Vec::new();
        let mut next = logical;
        for part in dir.map.extents.iter().filter_map(|extent| extent.clip(logical, end)) {
            if part.startoff != next || part.unwritten {
                break;
            }
            next = part.end();
            let place = self.sb.run(part.startblock, part.blockcount)?;
            pieces.push((place, size(self.sb.bytes(part.blockcount))));
        }
        if next < end {
            return Err(corrupt(format!("directory {} has a hole", dir.number)));
        }
        Ok(pieces)
    }

    /// The directory block, or block of its index, at block `logical`.
    pub(super) fn dir_block(&self, dir: &Dir, logical: u64) -> Result<Vec<u8>> {
        let pieces = self.pieces_of(dir, logical)?;
        let mut bytes = Vec::with_capacity(self.sb.dir_block_len());
        for (place, len) in &pieces {
            bytes.extend_from_slice(&self.store.block(*place, *len)?);
        }
        if self.sb.has_crc() {
            let place = pieces.first().map_or(0, |(place, _)| *place);
            block::verify(&bytes, place, &self.sb.meta_uuid, Some(dir.number))?;
        }
        Ok(bytes)
    }

    /// Stores the directory block at block `logical`, which may be new.
    fn put_dir_block(&mut self, dir: &mut Dir, logical: u64, mut bytes: Vec<u8>) -> Result<()> {
        let end = logical.saturating_add(self.dir_blocks());
        if !dir.map.extents.iter().any(|extent| extent.clip(logical, end).is_some()) {
            let before = dir.map.extents.iter().rfind(|extent| extent.startoff < logical);
            let goal = before.map_or(self.goal(dir.number), |e| e.startblock.saturating_add(e.blockcount));
            let taken = self.fill(dir.number, Fork::Data, logical, self.dir_blocks(), goal)?;
            let mut all: Vec<Extent> = dir.map.extents.drain(..).chain(taken).collect();
            all.sort_by_key(|extent| extent.startoff);
            all.into_iter().for_each(|extent| dir.map.push(extent));
        }
        let pieces = self.pieces_of(dir, logical)?;
        let place = pieces.first().map_or(0, |(place, _)| *place);
        self.describe(&mut bytes, place, dir.number);
        if let Some(layout) = block::layout(&bytes).filter(|_| self.sb.has_crc()) {
            block::seal(&mut bytes, layout.crc);
        }
        let mut rest = &bytes[..];
        for (place, len) in pieces {
            let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            self.store.change(now, place)?;
            rest = later;
        }
        Ok(())
    }

    /// Stores `blocks` from byte `offset` of the address space on, and frees what else there is up to the next part.
    pub(super) fn put_part(&mut self, dir: &mut Dir, offset: u64, blocks: Vec<Vec<u8>>) -> Result<()> {
        let mut at = offset.wrapping_shr(self.sb.blocklog);
        let end = at.saturating_add(super::index::LEAF_OFFSET.wrapping_shr(self.sb.blocklog));
        for bytes in blocks {
            self.put_dir_block(dir, at, bytes)?;
            at = at.saturating_add(self.dir_blocks());
        }
        self.unmap(dir, at, end.saturating_sub(at))
    }

    /// Frees everything from block `from` on.
    fn cut(&mut self, dir: &mut Dir, from: u64) -> Result<()> {
        self.unmap(dir, from, u64::MAX.saturating_sub(from))
    }

    fn unmap(&mut self, dir: &mut Dir, from: u64, count: u64) -> Result<()> {
        let end = from.saturating_add(count);
        for extent in std::mem::take(&mut dir.map.extents) {
            if let Some(gone) = extent.clip(from, end) {
                self.drop_extent(dir.number, Fork::Data, gone)?;
            }
            extent.clip(0, from).into_iter().chain(extent.clip(end, u64::MAX)).for_each(|part| dir.map.push(part));
        }
        Ok(())
    }
}

fn no_dir(node: &Node) -> Error {
    corrupt(format!("directory {} has an impossible form", node.number))
}
