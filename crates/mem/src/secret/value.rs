//! Values in memory for secrets.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use super::{
    region::{Backend, PAGE, Region, SecretError},
    scrub::scrub_stack,
};

/// A value in a [`Region`] of its own; dropped in place, then wiped.
///
/// What a `T` owns elsewhere (a `Vec`'s elements, say) is not in the region.
pub struct SecretBox<T> {
    region: Region,
    value: PhantomData<T>,
}

// SAFETY: owns its value as `Box` does.
unsafe impl<T: Send> Send for SecretBox<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for SecretBox<T> {}

impl<T> SecretBox<T> {
    /// Moves `value` there. The caller's copy, on its stack, is the caller's to
    /// scrub; where the value is secret already, use [`SecretBox::new_with`].
    ///
    /// # Errors
    /// [`SecretError`] if there is no memory.
    pub fn new(value: T) -> Result<Self, SecretError> {
        Self::new_with(|| value)
    }

    /// Makes the value, moves it there and scrubs the stack that was used.
    ///
    /// # Errors
    /// [`SecretError`] if there is no memory; `make` is not called then.
    pub fn new_with(make: impl FnOnce() -> T) -> Result<Self, SecretError> {
        const { assert!(align_of::<T>() <= PAGE, "regions are aligned to pages") };
        let region = Region::new(size_of::<T>().max(1))?;
        // SAFETY: the region holds a `T`, aligned, that nobody else has.
        unsafe { put(region.as_ptr().cast::<T>(), make) };
        scrub_stack();
        Ok(Self { region, value: PhantomData })
    }

    /// How the value is kept from others.
    pub fn backend(&self) -> Backend {
        self.region.backend()
    }
}

/// Apart, so that its frame is below the caller's and can be scrubbed.
///
/// # Safety
/// `to` is valid for writing a `T`.
#[inline(never)]
unsafe fn put<T>(to: *mut T, make: impl FnOnce() -> T) {
    // SAFETY: as the caller vouches.
    unsafe { to.write(make()) };
}

impl<T> Deref for SecretBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: holds a valid `T` from construction to drop.
        unsafe { &*self.region.as_ptr().cast::<T>() }
    }
}

impl<T> DerefMut for SecretBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { &mut *self.region.as_ptr().cast::<T>() }
    }
}

impl<T> Drop for SecretBox<T> {
    fn drop(&mut self) {
        // SAFETY: dropped once; the region is wiped and unmapped afterwards.
        unsafe { self.region.as_ptr().cast::<T>().drop_in_place() };
    }
}

/// Does not show the value.
impl<T> fmt::Debug for SecretBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretBox").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// Element types of a [`SecretSlice`]: any bytes are a value, zeros included.
pub trait Plain: sealed::Sealed + Copy + 'static {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// A zeroed slice in a [`Region`] of its own.
pub struct SecretSlice<T: Plain> {
    region: Region,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> SecretSlice<T> {
    /// `len` elements of zero.
    ///
    /// # Errors
    /// [`SecretError`] if there is no memory.
    pub fn new(len: usize) -> Result<Self, SecretError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(SecretError::Size(len))?;
        Ok(Self { region: Region::new(bytes.max(1))?, len, element: PhantomData })
    }

    /// How the elements are kept from others.
    pub fn backend(&self) -> Backend {
        self.region.backend()
    }

    /// Sets every element to zero.
    pub fn wipe(&mut self) {
        self.region.wipe();
    }
}

impl<T: Plain> Deref for SecretSlice<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the region holds `len` elements, each of whose bytes are a value.
        unsafe { std::slice::from_raw_parts(self.region.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for SecretSlice<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.region.as_ptr().cast(), self.len) }
    }
}

/// Does not show the elements.
impl<T: Plain> fmt::Debug for SecretSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSlice")
            .field("len", &self.len)
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[test]
    fn holds_and_drops_its_value_once() {
        static DROPS: AtomicU32 = AtomicU32::new(0);
        struct Noisy([u64; 4096]);
        impl Drop for Noisy {
            fn drop(&mut self) {
                assert_eq!(self.0[4095], 9);
                DROPS.fetch_add(1, Relaxed);
            }
        }
        let mut value = SecretBox::new(Noisy([1; 4096])).unwrap();
        value.0[4095] = 9;
        assert_eq!(value.0.iter().sum::<u64>(), 4095 + 9);
        assert!(!format!("{value:?}").contains('9'));
        drop(value);
        assert_eq!(DROPS.load(Relaxed), 1);
    }

    #[test]
    fn moves_between_threads() {
        let value = SecretBox::new(vec![1, 2, 3]).unwrap();
        let value = std::thread::spawn(move || value).join().unwrap();
        assert_eq!(*value, [1, 2, 3]);
        SecretBox::new(()).unwrap();
    }

    #[test]
    fn slices() {
        let mut slice = SecretSlice::<u64>::new(1000).unwrap();
        assert_eq!(slice.len(), 1000);
        slice[999] = 5;
        assert_eq!(slice.iter().sum::<u64>(), 5);
        slice.wipe();
        assert_eq!(slice.iter().sum::<u64>(), 0);
        assert!(SecretSlice::<u64>::new(usize::MAX / 4).is_err());
        assert!(SecretSlice::<u8>::new(0).unwrap().is_empty());
    }
}
