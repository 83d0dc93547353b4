//! Indices that must not mix are types.

/// A vocabulary index. The tokenizer, the sampler and the API all count in it, so it stays a plain number.
pub type TokenId = u32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            pub fn idx(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A block of KV memory within its pool. Block 0 is the null block: never written, never attended.
    BlockId
);
id!(
    /// One token's place in KV memory: `block * block_size + offset`.
    SlotId
);
id!(
    /// A set of layers that share one block table.
    GroupId
);
id!(
    /// A reservoir of equally sized blocks.
    PoolId
);
id!(
    /// A sequence's place on the device while it runs; smaller than `KvCapacity::max_rows`.
    RowId
);
id!(
    /// A loaded adapter.
    AdapterId
);

impl BlockId {
    pub const NULL: BlockId = BlockId(0);

    pub fn is_null(self) -> bool {
        self == Self::NULL
    }
}
