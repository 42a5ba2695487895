//! The kernel's tables: paging, segments, interrupts, and handlers that halt.

use arch::descriptor::{Attr, Descriptor};
use arch::paging::pte;
use mem::Ram;

use crate::layout::*;
use crate::machine::put64;

/// Writes them.
pub(crate) fn write(ram: &Ram) {
    let all = pte::P | pte::W | pte::U;
    put64(ram, PML4, PDPT | all);
    put64(ram, PDPT, PD_KERNEL | all);
    put64(ram, PDPT + 8, PD_ENCLAVES | all);
    put64(ram, PD_KERNEL, PT_RAM | all);
    // The kernel's window on the EPC: one large page.
    put64(ram, PD_KERNEL + 8, EPC | all | pte::PS);
    put64(ram, PD_ENCLAVES, PT_ENCLAVES | all);
    for page in 0..RAM_BYTES / PAGE {
        let at = page * PAGE;
        let user = (USER_CODE..SPARE + SPARES * PAGE).contains(&at);
        put64(ram, PT_RAM + page * 8, at | pte::P | pte::W | if user { pte::U } else { 0 });
    }
    let code = |dpl: u32| Attr(0x00a0_9b00 | dpl << 13);
    let descriptors =
        [(CODE0, code(0)), (DATA0, Attr(0x00c0_9300)), (DATA3, Attr(0x00c0_f300)), (CODE3, code(3))];
    for (selector, attr) in descriptors {
        put64(ram, GDT + u64::from(selector & !7), Descriptor::new(0, 0xf_ffff, attr).0);
    }
    for vector in 0..256 {
        let handler = HANDLERS + vector * 16;
        let low = handler & 0xffff | u64::from(CODE0) << 16 | 0xee << 40 | (handler >> 16) << 48;
        put64(ram, IDT + vector * 16, low);
        ram.write(handler, &[0xf4, 0xf4]);
    }
    ram.write(KERNEL_CODE, &code_page());
    ram.write(USER_CODE, &code_page());
    for spare in 0..SPARES {
        ram.write(SPARE + spare * PAGE, &SPIN);
    }
}
