//! Reading what a kernel module says about itself: its `.modinfo` section, a
//! list of zero-ended `key=value` strings in a 64-bit ELF file.

/// The strings of the `.modinfo` section; `None` if this is no such file.
pub(crate) fn modinfo(file: &[u8]) -> Option<Vec<(&str, &str)>> {
    let section = section(file, b".modinfo")?;
    Some(section.split(|&b| b == 0).filter_map(|s| std::str::from_utf8(s).ok()?.split_once('=')).collect())
}

/// Contents of the section with this name (*System V ABI, chapter 4*).
fn section<'a>(file: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    // ELFCLASS64, ELFDATA2LSB
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64_at(file, 0x28)?).ok()?;
    let entry = usize::from(u16_at(file, 0x3A)?);
    let count = usize::from(u16_at(file, 0x3C)?);
    let names = usize::from(u16_at(file, 0x3E)?);
    if entry < 64 {
        return None;
    }
    let header = |index: usize| -> Option<&'a [u8]> {
        let at = table.checked_add(index.checked_mul(entry)?)?;
        file.get(at..at.checked_add(64)?)
    };
    let data = |header: &[u8]| -> Option<&'a [u8]> {
        let at = usize::try_from(u64_at(header, 0x18)?).ok()?;
        let len = usize::try_from(u64_at(header, 0x20)?).ok()?;
        file.get(at..at.checked_add(len)?)
    };
    let strings = data(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = strings.get(u32_at(header, 0)? as usize..)?;
        let name = name.split(|&b| b == 0).next()?;
        (name == wanted).then(|| data(header))?
    })
}

fn bytes_at<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    bytes_at(data, at).map(u16::from_le_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    bytes_at(data, at).map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    bytes_at(data, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A module file with nothing but a `.modinfo` section.
    pub(crate) fn module(info: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let info_at = file.len();
        file.extend(info.bytes());
        let names_at = file.len();
        file.extend(names);
        let table = file.len();
        for (name, at, len) in [(0u32, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
            let mut header = [0u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            file.extend(header);
        }
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3A..0x3C].copy_from_slice(&64u16.to_le_bytes());
        file[0x3C..0x3E].copy_from_slice(&3u16.to_le_bytes());
        file[0x3E..0x40].copy_from_slice(&2u16.to_le_bytes());
        file
    }

    #[test]
    fn modinfo_is_read() {
        let file = module("depends=a,b\0alias=virtio:d00000003v*\0name=c\0");
        assert_eq!(
            modinfo(&file).unwrap(),
            [("depends", "a,b"), ("alias", "virtio:d00000003v*"), ("name", "c")]
        );
    }

    #[test]
    fn damage_is_never_a_panic() {
        let good = module("depends=a\0");
        for cut in 0..good.len() {
            assert!(modinfo(&good[..cut]).is_none(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut file = good.clone();
                file[at] = value;
                let _ = modinfo(&file);
            }
        }
    }
}
