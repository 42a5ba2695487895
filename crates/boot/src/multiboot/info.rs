//! What the image is told (*Multiboot specification 0.6.96 §3.3*).

use crate::layout::{HIGH_MEMORY, LOW_MEMORY_END, MULTIBOOT_START};
use crate::{BootError, Layout};

/// Bytes of the information structure, up to where the VBE fields end.
const SIZE: usize = 88;
/// Bytes of a memory map entry, its size field not counted, and of a module's.
const MAP_ENTRY: u32 = 20;
const MODULE_ENTRY: usize = 16;
/// Name of the loader.
const LOADER: &[u8] = b"Kluis";
/// The room there is.
const ROOM: usize = (LOW_MEMORY_END - MULTIBOOT_START) as usize;

/// Fields that are valid: memory, command line, modules, memory map, loader's name.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;

/// The information, with all it refers to behind it, to be written at
/// [`MULTIBOOT_START`].
///
/// # Errors
/// [`BootError::InfoTooLarge`].
pub(super) fn build(
    layout: &Layout,
    cmdline: &[u8],
    modules: &[((u64, u64), &[u8])],
) -> Result<Vec<u8>, BootError> {
    let map = memory_map(layout);
    let list = modules.len() * MODULE_ENTRY;
    let texts = modules.iter().map(|(_, text)| *text).chain([cmdline, LOADER]);
    let texts: usize = texts.map(|text| (text.len() + 1).next_multiple_of(4)).sum();
    let size = SIZE + map.len() + list + texts;
    if size > ROOM {
        return Err(BootError::InfoTooLarge { size, room: ROOM });
    }

    let mut out = vec![0; SIZE];
    let map_at = push(&mut out, &map);
    let list_at = push(&mut out, &vec![0; list]);
    let text = |out: &mut Vec<u8>, text: &[u8]| {
        let at = push(out, text);
        out.push(0);
        at
    };
    for (i, ((start, end), string)) in modules.iter().enumerate() {
        let string = text(&mut out, string);
        // all of it lies below 4 GiB: `require_usable` has seen to that
        let entry = [*start as u32, *end as u32, string];
        let at = SIZE + map.len() + i * MODULE_ENTRY;
        put(&mut out, at, &entry);
    }
    let cmdline = text(&mut out, cmdline);
    let loader = text(&mut out, LOADER);

    let (lower, upper) = kib(layout);
    put(&mut out, 0, &[FLAGS, lower, upper]);
    put(&mut out, 16, &[cmdline, modules.len() as u32, list_at]);
    put(&mut out, 44, &[map.len() as u32, map_at]);
    put(&mut out, 64, &[loader]);
    Ok(out)
}

/// The memory map; the types are those of E820.
fn memory_map(layout: &Layout) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in layout.e820() {
        out.extend(MAP_ENTRY.to_le_bytes());
        out.extend(entry.range.start.to_le_bytes());
        out.extend((entry.range.end - entry.range.start).to_le_bytes());
        out.extend((entry.kind as u32).to_le_bytes());
    }
    out
}

/// KiB of memory from 0 on, and from 1 MiB up to the first hole.
fn kib(layout: &Layout) -> (u32, u32) {
    let upper = layout.usable().find(|r| r.start == HIGH_MEMORY).map_or(0, |r| (r.end - r.start) >> 10);
    ((LOW_MEMORY_END >> 10) as u32, u32::try_from(upper).unwrap_or(u32::MAX))
}

/// Appends at a multiple of 4; gives the address.
fn push(out: &mut Vec<u8>, bytes: &[u8]) -> u32 {
    out.resize(out.len().next_multiple_of(4), 0);
    let at = MULTIBOOT_START as u32 + out.len() as u32;
    out.extend(bytes);
    at
}

fn put(out: &mut [u8], at: usize, words: &[u32]) {
    for (i, word) in words.iter().enumerate() {
        out[at + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
    }
}
