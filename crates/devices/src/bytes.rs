//! Little-endian access of any length to registers of fixed width.

/// The value of a little-endian access; bytes past the eighth are dropped.
pub(crate) fn value(data: &[u8]) -> u64 {
    data.iter().take(8).enumerate().fold(0, |v, (i, &b)| v | u64::from(b) << (8 * i))
}

/// Answers a read with `value`, zero-extended or truncated to the access.
pub(crate) fn fill(data: &mut [u8], value: u64) {
    let le = value.to_le_bytes();
    for (i, b) in data.iter_mut().enumerate() {
        *b = le.get(i).copied().unwrap_or(0);
    }
}

/// Copies from `image` at `offset`; what lies outside reads as `outside`.
pub(crate) fn read_image(image: &[u8], offset: u64, data: &mut [u8], outside: u8) {
    for (i, b) in data.iter_mut().enumerate() {
        *b = offset
            .checked_add(i as u64)
            .and_then(|o| usize::try_from(o).ok())
            .and_then(|o| image.get(o).copied())
            .unwrap_or(outside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_is_harmless() {
        assert_eq!(value(&[]), 0);
        assert_eq!(value(&[1, 2]), 0x201);
        assert_eq!(value(&[0xff; 20]), u64::MAX);
        let mut data = [0xaa; 10];
        fill(&mut data, 0x0807_0605_0403_0201);
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
        read_image(&[9, 8], u64::MAX, &mut data[..3], 0xff);
        assert_eq!(data[..3], [0xff; 3]);
        read_image(&[9, 8], 1, &mut data[..3], 0xff);
        assert_eq!(data[..3], [8, 0xff, 0xff]);
    }
}
