//! Macros that tie the Rust definitions to the SDM's tables at compile time.

/// Asserts size and field offsets; a mistake does not compile.
macro_rules! layout {
    ($t:ty, size $size:literal, { $($field:ident @ $off:literal),* $(,)? }) => {
        const _: () = {
            assert!(core::mem::size_of::<$t>() == $size);
            $(assert!(core::mem::offset_of!($t, $field) == $off);)*
        };
        impl $t {
            #[doc = concat!("Size in bytes: ", stringify!($size), ".")]
            pub const SIZE: usize = $size;
        }
    };
}

/// Defines a flags type over an integer that keeps unknown bits.
macro_rules! flags {
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $int:ty { $($body:tt)* }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, Default,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(transparent)]
        pub struct $name($int);

        bitflags::bitflags! {
            impl $name: $int { $($body)* }
        }

        impl $name {
            /// True if a bit is set that the SDM reserves.
            pub const fn has_reserved_bits(self) -> bool {
                self.bits() & !Self::all().bits() != 0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                if self.bits() == 0 {
                    f.write_str("0")
                } else {
                    bitflags::parser::to_writer(self, f)
                }
            }
        }
    };
}

/// Gives a structure an all-zero `Default`, which arrays beyond 32 elements
/// keep from being derived.
macro_rules! zero_default {
    ($($t:ty),* $(,)?) => {
        $(impl Default for $t {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        })*
    };
}

/// True if every byte is zero.
pub(crate) fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == 0)
}
