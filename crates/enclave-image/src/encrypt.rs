//! An enclave whose program is ciphertext, with a loader in clear
//! ([`enclave_abi::encrypted`] says where each lies, and what is encrypted how).
//!
//! One program, loader, settings and key give one enclave: nothing is random but the key.

use crate::elf::Program;
use crate::layout::{fill_in, program_pages, with_areas};
use crate::sgxs::{Enclave, Page};
use enclave_abi::encrypted::{KEY_SIZE, MAX_PIECES, MIN_STACK, Payload, Piece};
use enclave_abi::{Image, Layout, LayoutError, Settings};
use enclave_base::cipher::{self, Cipher};
use sgx_abi::{PAGE_SIZE, SecinfoFlags};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use zerocopy::IntoBytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

const PAGE: u64 = PAGE_SIZE as u64;

/// The key of encrypted enclaves: 256 random bits, written as 64 hexadecimal digits. Wiped
/// when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CodeKey([u8; KEY_SIZE]);

impl std::fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeKey(…)")
    }
}

impl CodeKey {
    /// A new one.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = Self([0; KEY_SIZE]);
        getrandom::fill(&mut key.0)?;
        Ok(key)
    }

    /// From the text of a key file; `None` if it is none.
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.trim_ascii().as_bytes();
        if digits.len() != 2 * KEY_SIZE {
            return None;
        }
        let mut key = Self([0; KEY_SIZE]);
        for (byte, pair) in key.0.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = (high? << 4 | low?) as u8;
        }
        Some(key)
    }

    /// The text of a key file.
    pub fn to_text(&self) -> zeroize::Zeroizing<String> {
        // as long as it will be: a string that grows leaves copies behind
        let mut text = zeroize::Zeroizing::new(String::with_capacity(2 * KEY_SIZE + 1));
        for byte in self.0 {
            // a string takes everything
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        text
    }
}

/// Why an enclave cannot be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// The settings do not make an enclave.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// The loader's ciphers need more.
    #[error("stack is below 16K, which the loader of an encrypted enclave needs: raise it")]
    Stack,
    /// The loader is something else.
    #[error("its loader is none: link the crate `enclave-loader`")]
    NoLoader,
    /// The program is a loader itself.
    #[error(
        "its program is a loader, starts where it has no content, or has more than {MAX_PIECES} segments: build it with `kluis enclave build`"
    )]
    Program,
}

/// Lays out a program as ciphertext under `key`, with the loader's program.
///
/// # Errors
/// The two, or the settings, do not make such an enclave.
pub fn lay_out(
    program: &Program<'_>,
    loader: &Program<'_>,
    settings: &Settings,
    key: &CodeKey,
) -> Result<Enclave, EncryptError> {
    let place = loader.payload.ok_or(EncryptError::NoLoader)?;
    if program.payload.is_some() {
        return Err(EncryptError::Program);
    }
    if settings.stack < MIN_STACK {
        return Err(EncryptError::Stack);
    }
    // with a guard between: the loader reads and writes nothing by the payload's addresses
    let base = program.image.size.next_multiple_of(PAGE) + PAGE;
    let image = Image { size: base + loader.image.size, ..program.image };
    let layout = Layout::new(&image, settings)?;
    let mut pages = program_pages(program, 0);
    fill_in(&mut pages, program.layout, layout.as_bytes());
    let mut payload = Payload {
        loader: base,
        rela: base + loader.image.rela,
        rela_count: loader.image.rela_count,
        entry: program.entry,
        ..Payload::BLANK
    };
    encrypt(&mut pages, &mut payload, key)?;
    let mut clear = program_pages(loader, base);
    fill_in(&mut clear, base + loader.layout, layout.as_bytes());
    fill_in(&mut clear, base + place, payload.as_bytes());
    pages.append(&mut clear);
    Ok(with_areas(pages, &layout, base + loader.entry))
}

/// Encrypts the pages that have content, each run of the same rights as one piece, and makes
/// them writable.
fn encrypt(pages: &mut [Page], payload: &mut Payload, key: &CodeKey) -> Result<(), EncryptError> {
    let mut pieces: Vec<(Piece, Vec<u8>)> = Vec::new();
    for page in pages.iter() {
        let Some(data) = &page.data else { continue };
        let rights = (page.flags & SecinfoFlags::RWX).bits();
        match pieces.last_mut() {
            Some((piece, content)) if piece.end() == page.offset && piece.rights == rights => {
                piece.size += PAGE;
                content.extend_from_slice(&**data);
            }
            _ => {
                let piece = Piece { offset: page.offset, size: PAGE, rights, ..Piece::default() };
                pieces.push((piece, data.to_vec()));
            }
        }
    }
    if pieces.len() > MAX_PIECES {
        return Err(EncryptError::Program);
    }
    payload.count = pieces.len() as u64;
    for (place, (piece, _)) in payload.pieces.iter_mut().zip(&pieces) {
        *place = *piece;
    }
    if !payload.makes_sense() {
        return Err(EncryptError::Program);
    }
    // all that is authenticated, then all that is encrypted, whose length that tells
    let mut digest = Sha256::new_with_prefix(payload.as_bytes());
    pieces.iter().for_each(|(_, content)| digest.update(content));
    payload.id = cipher::id(&key.0, &digest.finalize().into());
    let cipher = Cipher::new(&key.0, &payload.id);
    let described = *payload;
    for (n, (piece, content)) in pieces.iter_mut().enumerate() {
        payload.pieces[n].tag = cipher.encrypt(&described, n, content);
        let inside = pages.iter_mut().filter(|page| (piece.offset..piece.end()).contains(&page.offset));
        for (page, content) in inside.zip(content.as_chunks().0) {
            page.flags |= SecinfoFlags::W;
            page.data = Some(Box::new(*content));
        }
    }
    payload.check = cipher.check(payload);
    Ok(())
}

/// The description of the payload, if the enclave is encrypted and its files agree with it:
/// of anybody's making.
pub fn payload(enclave: &Enclave) -> Option<Payload> {
    let content = enclave.pages.iter().filter_map(|page| Some((page, page.data.as_ref()?)));
    let (at, payload) =
        content.filter_map(|(page, data)| Some((page.offset, Payload::find(data)?))).next()?;
    // it describes what lies below it, and nothing beyond the enclave
    (payload.loader <= at && payload.loader < enclave.size).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;
    use crate::testing::{IMAGE, at, loader, program};

    fn key() -> CodeKey {
        CodeKey([9; KEY_SIZE])
    }

    fn made(key: &CodeKey, settings: &Settings) -> Enclave {
        let (program, loader) = (program(), loader());
        lay_out(&Program::read(&program).unwrap(), &Program::read(&loader).unwrap(), settings, key).unwrap()
    }

    #[test]
    fn pieces_are_segments_with_w_and_the_loader_is_in_clear() {
        let settings = Settings { threads: 1, ..Settings::default() };
        let enclave = made(&key(), &settings);
        let payload = payload(&enclave).unwrap();
        let pieces: Vec<_> = payload.pieces().iter().map(|p| (p.offset, p.size, p.rights)).collect();
        // the data's last two pages have no content
        assert_eq!(pieces, [(0, 0x1000, 1), (0x1000, 0x1000, 5), (0x2000, 0x1000, 3)]);
        assert_eq!((payload.loader, payload.entry), (0x7000, 0x1004));
        assert_eq!((payload.rela, payload.rela_count), (0x7400, 1));
        let rights = |offset: u64| {
            let page = enclave.pages.iter().find(|page| page.offset == offset);
            page.map(|page| (page.flags & SecinfoFlags::RWX).bits())
        };
        assert_eq!([0, 0x1000, 0x2000, 0x5000].map(rights), [3, 7, 3, 3].map(Some));
        assert_eq!([0x6000, 0x7000, 0x8000, 0x9000].map(rights), [None, Some(1), Some(5), Some(3)]);
        assert!(enclave.pages.is_sorted_by_key(|page| page.offset));
        // threads enter by the loader, which knows the layout
        let report = inspect::stream(&enclave);
        assert!(report.threads.iter().all(|thread| thread.entry == 0x8004));
        let encrypted = report.encrypted.unwrap();
        assert_eq!((encrypted.loader, encrypted.ciphertext), (0x7000, 0x3000));
        let decrypted: Vec<_> = report.ranges.iter().filter_map(|range| range.decrypted.as_deref()).collect();
        assert_eq!(decrypted, ["r--", "r-x", "rw-"]);
        assert!(
            report.warnings.len() == 1 && report.warnings[0].contains("encrypted code"),
            "{:?}",
            report.warnings
        );
        let image = Image { size: 0x7000 + IMAGE, rela: 0x400, rela_count: 1 };
        let layout = Layout::new(&image, &settings).unwrap();
        let first = enclave.pages.iter().find(|page| page.offset == 0x7000).unwrap().data.clone().unwrap();
        assert_eq!(first[at::LAYOUT..][..size_of::<Layout>()], *layout.as_bytes());
    }

    #[test]
    fn the_key_opens_it_to_what_it_was() {
        let settings = Settings::default();
        let enclave = made(&key(), &settings);
        let payload = payload(&enclave).unwrap();
        let cipher = Cipher::new(&key().0, &payload.id);
        assert_eq!(cipher.verify(&payload), Ok(()));
        let file = program();
        for (n, piece) in payload.pieces().iter().enumerate() {
            let inside = enclave.pages.iter().filter(|p| (piece.offset..piece.end()).contains(&p.offset));
            let mut content: Vec<u8> = inside.flat_map(|page| *page.data.clone().unwrap()).collect();
            assert_eq!(cipher.decrypt(&payload, n, &mut content), Ok(()));
            if piece.rights == 5 {
                assert_eq!(content[..16], file[at::CODE..at::CODE + 16]);
            }
        }
        // the loader here is the same program, in clear
        let below = enclave.pages.iter().filter(|page| page.offset < payload.loader);
        let below: Vec<u8> =
            below.flat_map(|page| page.data.clone().map_or([0; 4096], |data| *data)).collect();
        assert!(!below.windows(8).any(|window| window == [0xda; 8] || window == [0x90; 8]));
    }

    #[test]
    fn one_source_and_one_key_give_one_enclave() {
        let settings = Settings::default();
        let one = made(&key(), &settings);
        assert_eq!(one, made(&key(), &settings));
        let id = |enclave| payload(enclave).unwrap().id;
        let other = made(&CodeKey([8; KEY_SIZE]), &settings);
        assert!(one.measure() != other.measure() && id(&one) != id(&other));
        // another program under the same key: nothing that is encrypted is the same
        let another = made(&key(), &Settings { threads: 2, ..settings });
        assert_ne!(id(&one), id(&another));
        assert!(one.pages[1].data != another.pages[1].data, "the same code, under another key");
    }

    #[test]
    fn what_cannot_be_encrypted_is_refused() {
        let (program, loader) = (program(), loader());
        let (program, loader) = (Program::read(&program).unwrap(), Program::read(&loader).unwrap());
        let settings = Settings::default();
        let refused = |program, loader, settings| lay_out(program, loader, settings, &key()).unwrap_err();
        assert_eq!(refused(&program, &program, &settings), EncryptError::NoLoader);
        assert_eq!(refused(&loader, &loader, &settings), EncryptError::Program);
        let small = Settings { stack: 0x3000, ..settings };
        assert_eq!(refused(&program, &loader, &small), EncryptError::Stack);
        let none = Settings { heap: 0, ..settings };
        assert_eq!(refused(&program, &loader, &none), EncryptError::Layout(LayoutError::NotPages("heap")));
    }

    #[test]
    fn keys_are_64_digits() {
        let key = CodeKey(std::array::from_fn(|n| n as u8));
        let text = key.to_text();
        assert_eq!(text.len(), 65);
        assert_eq!(CodeKey::from_text(&text), Some(key));
        for wrong in ["", "0", &text[1..], &format!("{}0", text.trim_ascii()), &text.replace('f', "g")] {
            assert_eq!(CodeKey::from_text(wrong), None, "{wrong}");
        }
        assert_ne!(CodeKey::generate().unwrap(), CodeKey::generate().unwrap());
    }
}
