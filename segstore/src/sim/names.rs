//! The names on a simulated disk: directories and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::survival::Chance;
use crate::disk::DirectoryEntry;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    File(u64),
    Directory,
}

/// Names as they are, and as they are when the power goes and nothing else is kept.
#[derive(Debug, Default)]
pub(super) struct Names {
    roots: BTreeSet<PathBuf>,
    current: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<NameChange>,
}

/// A change that a reboot keeps or loses as a whole.
#[derive(Clone, Debug)]
enum NameChange {
    Set {
        path: PathBuf,
        node: Node,
    },
    Remove {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: Node,
    },
}

impl NameChange {
    fn apply_to(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Set { path, node } => {
                names.insert(path.clone(), *node);
            }
            Self::Remove { path } => {
                names.remove(path);
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
    fn synced_by(&self, directory: &Path) -> (bool, Option<Self>) {
        let inside = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Set { path, .. } | Self::Remove { path } => (inside(path), None),
            Self::Rename { from, to, .. } if inside(to) => {
                let rest = Self::Remove { path: from.clone() };
                (true, (!inside(from)).then_some(rest))
            }
            Self::Rename { .. } => (false, None),
        }
    }
}

impl Names {
    pub(super) fn create_root(&mut self, path: PathBuf) {
        self.roots.insert(path);
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.roots.contains(path) || self.current.contains_key(path)
    }

    pub(super) fn check_directory(&self, path: &Path) -> io::Result<()> {
        if self.roots.contains(path) {
            return Ok(());
        }
        match self.current.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file_at(&self, path: &Path) -> io::Result<u64> {
        match self.current.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The path of a file, for a log.
    pub(super) fn name_of(&self, id: u64) -> String {
        self.current
            .iter()
            .find(|(_, node)| **node == Node::File(id))
            .map_or_else(
                || format!("file {id} without a name"),
                |(path, _)| path.display().to_string(),
            )
    }

    /// Whether the file is reachable by any name.
    pub(super) fn refers_to(&self, id: u64) -> bool {
        self.current.values().any(|node| *node == Node::File(id))
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        self.check_directory(path.parent().ok_or(io::ErrorKind::NotFound)?)
    }

    fn change(&mut self, change: NameChange) {
        change.apply_to(&mut self.current);
        self.unsynced.push(change);
    }

    pub(super) fn create_file(&mut self, path: &Path, id: u64) -> io::Result<()> {
        self.check_parent(path)?;
        self.change(NameChange::Set {
            path: path.to_owned(),
            node: Node::File(id),
        });
        Ok(())
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.check_parent(path)?;
        self.change(NameChange::Set {
            path: path.to_owned(),
            node: Node::Directory,
        });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_parent(to)?;
        if matches!(self.current.get(to), Some(Node::Directory)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let node = Node::File(self.file_at(from)?);
        self.change(NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            node,
        });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file_at(path)?;
        self.change(NameChange::Remove {
            path: path.to_owned(),
        });
        Ok(())
    }

    pub(super) fn plant(&mut self, path: &Path, id: u64) -> io::Result<()> {
        self.check_parent(path)?;
        self.current.insert(path.to_owned(), Node::File(id));
        self.durable.insert(path.to_owned(), Node::File(id));
        Ok(())
    }

    pub(super) fn list(
        &self,
        directory: &Path,
        length_of: impl Fn(u64) -> u64,
    ) -> io::Result<Vec<DirectoryEntry>> {
        self.check_directory(directory)?;
        let entries = self.current.iter().filter_map(|(path, node)| {
            if path.parent() != Some(directory) {
                return None;
            }
            let name: OsString = path.file_name()?.to_owned();
            let (length, is_file) = match node {
                Node::File(id) => (length_of(*id), true),
                Node::Directory => (0, false),
            };
            Some(DirectoryEntry {
                name,
                length,
                is_file,
            })
        });
        Ok(entries.collect())
    }

    pub(super) fn sync(&mut self, directory: &Path) {
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
    pub(super) fn forget_unsynced(&mut self, directory: &Path) {
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
        let durable = &self.durable;
        let roots = &self.roots;
        let reachable = |path: &Path| {
            path.ancestors()
                .skip(1)
                .find_map(|ancestor| {
                    if roots.contains(ancestor) {
                        return Some(true);
                    }
                    (durable.get(ancestor) != Some(&Node::Directory)).then_some(false)
                })
                .unwrap_or(false)
        };
        self.current = durable
            .iter()
            .filter(|(path, _)| reachable(path))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        self.durable = self.current.clone();
    }
}
