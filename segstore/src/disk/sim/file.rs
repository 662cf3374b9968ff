//! The bytes of a simulated file.

use std::fmt;

use super::survival::{Chance, Fate};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A change of a file's bytes or length.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
    Allocate(usize),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "{} bytes at {offset}", bytes.len()),
            Self::Length(length) | Self::Allocate(length) => length.fmt(f),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct File {
    /// What a reader sees.
    written: Vec<u8>,
    /// What the power cannot take.
    durable: Vec<u8>,
    /// What was written since, in order.
    unsynced: Vec<Change>,
    /// Up to where writes need no more space.
    allocated: usize,
    /// The handle that holds the lock.
    lock: Option<u64>,
}

impl File {
    pub(super) fn durable(content: Vec<u8>) -> Self {
        Self {
            allocated: content.len(),
            durable: content.clone(),
            written: content,
            ..Self::default()
        }
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.written
    }

    pub(super) fn needs_space(&self, change: &Change) -> bool {
        match change {
            Change::Write { offset, bytes } => offset + bytes.len() > self.allocated,
            Change::Allocate(length) => *length > self.allocated,
            Change::Length(_) => false,
        }
    }

    pub(super) fn apply(&mut self, change: Change) {
        match &change {
            Change::Write { offset, bytes } => {
                self.allocated = self.allocated.max(offset + bytes.len());
            }
            Change::Allocate(length) => self.allocated = self.allocated.max(*length),
            Change::Length(length) => self.allocated = self.allocated.min(*length),
        }
        change.apply_to(&mut self.written);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply_to(&mut self.durable);
        }
    }

    /// A failed sync: nothing of it reaches the disk any more, though readers still see it.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    pub(super) fn lose(&mut self, chance: &mut Chance) {
        for change in self.unsynced.drain(..) {
            match chance.fate() {
                Fate::Kept => change.apply_to(&mut self.durable),
                Fate::Lost => {}
                Fate::Torn => change.tear_into(&mut self.durable, chance),
            }
        }
        self.written.clone_from(&self.durable);
        self.allocated = self.written.len();
        self.lock = None;
    }

    pub(super) fn try_lock(&mut self, handle: u64) -> bool {
        *self.lock.get_or_insert(handle) == handle
    }

    pub(super) fn unlock(&mut self, handle: u64) {
        if self.lock == Some(handle) {
            self.lock = None;
        }
    }
}

impl Change {
    /// How many bytes are written.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Write { bytes, .. } => bytes.len() as u64,
            Self::Length(_) | Self::Allocate(_) => 0,
        }
    }

    fn apply_to(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(image, *offset, bytes),
            Self::Length(length) => image.resize(*length, 0),
            Self::Allocate(length) => grow(image, *length),
        }
    }

    /// Keeps some sectors of a write; the length may have grown all the same.
    fn tear_into(&self, image: &mut Vec<u8>, chance: &mut Chance) {
        let Self::Write { offset, bytes } = self else {
            return;
        };
        let end = offset + bytes.len();
        if image.len() < end && chance.keeps() {
            image.resize(end, 0);
        }
        let mut at = *offset;
        let mut rest = bytes.as_slice();
        while let Some((sector, after)) =
            rest.split_at_checked((SECTOR - at % SECTOR).min(rest.len()))
            && !sector.is_empty()
        {
            if chance.keeps() {
                put(image, at, sector);
            }
            at += sector.len();
            rest = after;
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    grow(image, end);
    if let Some(place) = image.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Makes the image at least `length` long. In a debug build this is far faster than `resize`.
fn grow(image: &mut Vec<u8>, length: usize) {
    if let Some(missing) = length.checked_sub(image.len()) {
        image.append(&mut vec![0; missing]);
    }
}
