//! The names on a simulated disk: directories and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::survival::Chance;
use crate::disk::DirectoryEntry;

/// What a name stands for. A directory keeps what is in it under whatever name it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    File(u64),
    Directory(u64),
}

/// A name, and the directory that it is in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Name {
    directory: u64,
    name: OsString,
}

type Tree = BTreeMap<Name, Node>;

/// Names as they are, and as they are when the power goes and nothing else is kept.
#[derive(Debug, Default)]
pub(super) struct Names {
    roots: BTreeMap<PathBuf, u64>,
    next_directory: u64,
    current: Tree,
    durable: Tree,
    unsynced: Vec<NameChange>,
}

/// A change that a reboot keeps or loses as a whole.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Set { name: Name, node: Node },
    Remove { name: Name },
    Rename { from: Name, to: Name, node: Node },
}

impl NameChange {
    fn apply_to(&self, names: &mut Tree) {
        match self {
            Self::Set { name, node } => {
                names.insert(name.clone(), *node);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                // The name may stand for another file by now if changes before were lost.
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }

    /// Whether a sync of `directory` makes it durable, and what is left to be synced then.
    fn synced_by(&self, directory: u64) -> (bool, Option<Self>) {
        match self {
            Self::Set { name, .. } | Self::Remove { name } => (name.directory == directory, None),
            Self::Rename { from, to, .. } if to.directory == directory => {
                let rest = Self::Remove { name: from.clone() };
                (true, (from.directory != directory).then_some(rest))
            }
            Self::Rename { .. } => (false, None),
        }
    }
}

impl Names {
    pub(super) fn create_root(&mut self, path: PathBuf) {
        let id = self.new_directory();
        self.roots.insert(path, id);
    }

    fn new_directory(&mut self) -> u64 {
        self.next_directory += 1;
        self.next_directory
    }

    /// The number of a directory.
    pub(super) fn directory_at(&self, path: &Path) -> io::Result<u64> {
        if let Some(&root) = self.roots.get(path) {
            return Ok(root);
        }
        match self.current.get(&self.name_at(path)?) {
            Some(Node::Directory(id)) => Ok(*id),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What a path names in a directory that exists.
    fn name_at(&self, path: &Path) -> io::Result<Name> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Ok(Name {
            directory: self.directory_at(parent)?,
            name: name.to_owned(),
        })
    }

    fn node_at(&self, path: &Path) -> io::Result<Node> {
        let node = self.current.get(&self.name_at(path)?);
        node.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.roots.contains_key(path) || self.node_at(path).is_ok()
    }

    pub(super) fn file_at(&self, path: &Path) -> io::Result<u64> {
        match self.node_at(path)? {
            Node::File(id) => Ok(id),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The path of a file, for a log.
    pub(super) fn name_of(&self, id: u64) -> String {
        self.path_of(Node::File(id)).map_or_else(
            || format!("file {id} without a name"),
            |path| path.display().to_string(),
        )
    }

    fn path_of(&self, node: Node) -> Option<PathBuf> {
        let root = self
            .roots
            .iter()
            .find(|(_, id)| Node::Directory(**id) == node);
        if let Some((path, _)) = root {
            return Some(path.clone());
        }
        let (name, _) = self.current.iter().find(|(_, found)| **found == node)?;
        let parent = self.path_of(Node::Directory(name.directory))?;
        Some(parent.join(&name.name))
    }

    /// Whether the file is reachable by any name.
    pub(super) fn refers_to(&self, id: u64) -> bool {
        self.current.values().any(|node| *node == Node::File(id))
    }

    /// Does what may still be lost.
    pub(super) fn change(&mut self, change: NameChange) {
        change.apply_to(&mut self.current);
        self.unsynced.push(change);
    }

    pub(super) fn create_file(&mut self, path: &Path, id: u64) -> io::Result<()> {
        let name = self.name_at(path)?;
        let node = Node::File(id);
        self.change(NameChange::Set { name, node });
        Ok(())
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let name = self.name_at(path)?;
        let node = Node::Directory(self.new_directory());
        self.change(NameChange::Set { name, node });
        Ok(())
    }

    /// What a rename changes; it fails as the operating system does.
    pub(super) fn renaming(&self, from: &Path, to: &Path) -> io::Result<NameChange> {
        let (from, to) = (self.name_at(from)?, self.name_at(to)?);
        let node = *self.current.get(&from).ok_or(io::ErrorKind::NotFound)?;
        match (node, self.current.get(&to)) {
            (Node::Directory(_), Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (Node::File(_), Some(Node::Directory(_))) => Err(io::ErrorKind::IsADirectory.into()),
            (Node::File(_), Some(Node::File(_))) | (_, None) => {
                Ok(NameChange::Rename { from, to, node })
            }
        }
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file_at(path)?;
        let name = self.name_at(path)?;
        self.change(NameChange::Remove { name });
        Ok(())
    }

    pub(super) fn plant(&mut self, path: &Path, id: u64) -> io::Result<()> {
        let name = self.name_at(path)?;
        self.current.insert(name.clone(), Node::File(id));
        self.durable.insert(name, Node::File(id));
        Ok(())
    }

    pub(super) fn list(
        &self,
        directory: &Path,
        length_of: impl Fn(u64) -> u64,
    ) -> io::Result<Vec<DirectoryEntry>> {
        let directory = self.directory_at(directory)?;
        let entries = self.current.iter();
        let entries = entries.filter(|(name, _)| name.directory == directory);
        let entries = entries.map(|(name, node)| {
            let (length, is_file) = match node {
                Node::File(id) => (length_of(*id), true),
                Node::Directory(_) => (0, false),
            };
            DirectoryEntry {
                name: name.name.clone(),
                length,
                is_file,
            }
        });
        Ok(entries.collect())
    }

    pub(super) fn sync(&mut self, directory: u64) {
        let mut left = Vec::new();
        for change in self.unsynced.drain(..) {
            let (durable, rest) = change.synced_by(directory);
            if durable {
                // What is left of it, the removal of the old name, comes on its own.
                match (&change, &rest) {
                    (NameChange::Rename { to, node, .. }, Some(_)) => {
                        self.durable.insert(to.clone(), *node);
                    }
                    _ => change.apply_to(&mut self.durable),
                }
                left.extend(rest);
            } else {
                left.push(change);
            }
        }
        self.unsynced = left;
    }

    /// A failed sync: what it was to make durable never will be.
    pub(super) fn forget_unsynced(&mut self, directory: u64) {
        self.unsynced
            .retain(|change| !change.synced_by(directory).0);
    }

    pub(super) fn lose(&mut self, chance: &mut Chance) {
        for change in self.unsynced.drain(..) {
            if chance.keeps() {
                change.apply_to(&mut self.durable);
            }
        }
        // A directory that was lost takes along what is in it.
        let mut reachable: BTreeSet<u64> = self.roots.values().copied().collect();
        loop {
            let before = reachable.len();
            for (name, node) in &self.durable {
                if let Node::Directory(id) = node
                    && reachable.contains(&name.directory)
                {
                    reachable.insert(*id);
                }
            }
            if reachable.len() == before {
                break;
            }
        }
        self.durable
            .retain(|name, _| reachable.contains(&name.directory));
        self.current = self.durable.clone();
    }
}
