//! How the instructions of a block follow one another.
//!
//! A handler written as `fn(&mut Cpu, &Op) -> Result<Flow, Exception>` becomes
//! a link of a chain: [`Handler`], which executes its op and goes straight on
//! to that of the next op, by a jump where the compiler makes one of the call
//! in tail position; and from the last of a block to the first of the next
//! ([`crate::jumps`]). Nothing depends on those jumps: a chain is at most
//! `jumps::CHAIN` and one block calls deep. Each block ends in an op of `end`.

#[cfg(test)]
mod tests;

use std::ptr::NonNull;

use arch::Exception;

use crate::Cpu;
use crate::mmu::reach::Miss;
use crate::op::{Flow, Op};

/// What a handler written for one instruction gives.
pub type Ran = Result<Flow, Exception>;

/// How a chain came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[must_use]
pub enum Chain {
    /// All instructions of the block `Cpu::block` are executed and counted, and
    /// RIP says where execution continues.
    Through,
    /// The block `Cpu::block` was left at some instruction: `Cpu::left` says more.
    Left,
}

/// Executes an op and those that follow it, by the convention that host code made
/// at run time can follow, too ([`crate::thunk`]).
///
/// # Safety
/// The pointer leads to an op of the sequence of `Cpu::block`, which the cache of
/// the processor's engine keeps; a sequence ends in `end`.
pub type Handler = unsafe extern "sysv64-unwind" fn(&mut Cpu, *const Op) -> Chain;

/// Where and why a chain was left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Offset in its page of the last instruction executed.
    pub off: u16,
    /// What it gave.
    pub ran: Ran,
}

/// The only value of a function's own type.
fn the<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: a type of size zero has one value, of which the makers of
    // handlers below were given a copy; reading it reads nothing.
    unsafe { NonNull::<F>::dangling().read() }
}

/// Goes on to the op after `op`.
///
/// # Safety
/// As for [`Handler`], of the op after `op`.
#[inline(always)]
pub(crate) unsafe fn next(cpu: &mut Cpu, op: *const Op) -> Chain {
    // SAFETY: the caller's promise.
    unsafe {
        let op = op.add(1);
        ((*op).run)(cpu, op)
    }
}

/// Leaves the block.
#[cold]
#[inline(never)]
fn leave(cpu: &mut Cpu, op: &Op, ran: Ran) -> Chain {
    cpu.left = Left { off: op.off, ran };
    Chain::Left
}

/// The handler of an instruction that may do anything.
pub fn any<F: Fn(&mut Cpu, &Op) -> Ran + Copy>(_: F) -> Handler {
    unsafe extern "sysv64-unwind" fn run<F: Fn(&mut Cpu, &Op) -> Ran + Copy>(
        cpu: &mut Cpu,
        op: *const Op,
    ) -> Chain {
        // SAFETY: the caller's promise for this op, and for the next one.
        unsafe {
            let ran = the::<F>()(cpu, &*op);
            if ran == Ok(Flow::Next) && !cpu.stop { next(cpu, op) } else { leave(cpu, &*op, ran) }
        }
    }
    run::<F>
}

/// The handler of an instruction that never stops the block: it writes
/// registers only.
pub fn pure<F: Fn(&mut Cpu, &Op) -> Ran + Copy>(_: F) -> Handler {
    unsafe extern "sysv64-unwind" fn run<F: Fn(&mut Cpu, &Op) -> Ran + Copy>(
        cpu: &mut Cpu,
        op: *const Op,
    ) -> Chain {
        // SAFETY: the caller's promise for this op, and for the next one.
        unsafe {
            let ran = the::<F>()(cpu, &*op);
            if ran == Ok(Flow::Next) { next(cpu, op) } else { leave(cpu, &*op, ran) }
        }
    }
    run::<F>
}

/// The handler of the last instruction of a block, which sets RIP.
pub fn branch<F: Fn(&mut Cpu, &Op) -> Ran + Copy>(_: F) -> Handler {
    unsafe extern "sysv64-unwind" fn run<F: Fn(&mut Cpu, &Op) -> Ran + Copy>(
        cpu: &mut Cpu,
        op: *const Op,
    ) -> Chain {
        // SAFETY: the caller's promise.
        unsafe {
            let ran = the::<F>()(cpu, &*op);
            if ran == Ok(Flow::Jump) && !cpu.stop { cpu.onward() } else { leave(cpu, &*op, ran) }
        }
    }
    run::<F>
}

/// The handler of an instruction that is written for any [`Reach`]: by `fast`,
/// and where that does not lead, by `full`.
///
/// [`Reach`]: crate::mmu::reach::Reach
pub(crate) fn reaching<F, S>(_: F, _: S) -> Handler
where
    F: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
    S: Fn(&mut Cpu, &Op) -> Ran + Copy,
{
    unsafe extern "sysv64-unwind" fn run<F, S>(cpu: &mut Cpu, op: *const Op) -> Chain
    where
        F: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
        S: Fn(&mut Cpu, &Op) -> Ran + Copy,
    {
        // SAFETY: the caller's promise for this op, and for the next one.
        unsafe {
            match the::<F>()(cpu, &*op) {
                Ok(Flow::Next) => next(cpu, op),
                Ok(Flow::Jump) => cpu.onward(),
                Err(Miss) => full::<S>(cpu, op),
            }
        }
    }
    run::<F, S>
}

/// The handler of an instruction that a thunk ([`crate::thunk`]) carries out and goes
/// on from: on the memory operand that `place` gives, which looks at all there is to
/// be checked. Where that is no way, by `full`.
pub(crate) fn native<P, S>(_: P, _: S) -> Handler
where
    P: Fn(&Cpu, &Op) -> Result<*mut u8, Miss> + Copy,
    S: Fn(&mut Cpu, &Op) -> Ran + Copy,
{
    unsafe extern "sysv64-unwind" fn run<P, S>(cpu: &mut Cpu, op: *const Op) -> Chain
    where
        P: Fn(&Cpu, &Op) -> Result<*mut u8, Miss> + Copy,
        S: Fn(&mut Cpu, &Op) -> Ran + Copy,
    {
        // SAFETY: the caller's promise for this op, whose number is of such a thunk,
        // and for the next one.
        unsafe {
            match the::<P>()(cpu, &*op) {
                Ok(memory) => {
                    let thunk = cpu.thunks.link((*op).imm.cast_unsigned());
                    thunk(cpu, op, memory, std::ptr::null_mut())
                }
                Err(Miss) => full::<S>(cpu, op),
            }
        }
    }
    run::<P, S>
}

/// Where a thunk goes on, with the same op, that has to give up.
pub(crate) fn given_up<S: Fn(&mut Cpu, &Op) -> Ran + Copy>(_: S) -> Handler {
    full::<S>
}

/// Executes an op that [`reaching`] or [`native`] have found no fast way for.
#[cold]
#[inline(never)]
unsafe extern "sysv64-unwind" fn full<S: Fn(&mut Cpu, &Op) -> Ran + Copy>(
    cpu: &mut Cpu,
    op: *const Op,
) -> Chain {
    // SAFETY: the caller's promise for this op, and for the next one.
    unsafe {
        let ran = the::<S>()(cpu, &*op);
        match ran {
            Ok(Flow::Next) if !cpu.stop => next(cpu, op),
            Ok(Flow::Jump) if !cpu.stop => cpu.onward(),
            _ => leave(cpu, &*op, ran),
        }
    }
}

/// The handler of two instructions in one go: of one that may set flags, written
/// as for [`reaching`], and of the branch after it, likewise.
///
/// It must be put into an op only if the next one is that of the branch.
pub(crate) fn both<F, S, BF, BS>(_: F, _: S, _: BF, _: BS) -> Handler
where
    F: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
    S: Fn(&mut Cpu, &Op) -> Ran + Copy,
    BF: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
    BS: Fn(&mut Cpu, &Op) -> Ran + Copy,
{
    unsafe extern "sysv64-unwind" fn run<F, S, BF, BS>(cpu: &mut Cpu, op: *const Op) -> Chain
    where
        F: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
        S: Fn(&mut Cpu, &Op) -> Ran + Copy,
        BF: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
        BS: Fn(&mut Cpu, &Op) -> Ran + Copy,
    {
        // SAFETY: the caller's promise for this op, and for the next one, which
        // is that of the branch.
        unsafe {
            let Ok(Flow::Next) = the::<F>()(cpu, &*op) else { return full::<S>(cpu, op) };
            let branch = op.add(1);
            match the::<BF>()(cpu, &*branch) {
                Ok(Flow::Jump) => cpu.onward(),
                _ => full::<BS>(cpu, branch),
            }
        }
    }
    run::<F, S, BF, BS>
}

/// The handler of two instructions in one go that only write registers and flags:
/// of the op and of the one after it.
///
/// It must be put into an op only if the next one is of the second instruction.
pub(crate) fn pair<F: Fn(&mut Cpu, &Op, &Op) + Copy>(_: F) -> Handler {
    unsafe extern "sysv64-unwind" fn run<F: Fn(&mut Cpu, &Op, &Op) + Copy>(
        cpu: &mut Cpu,
        op: *const Op,
    ) -> Chain {
        // SAFETY: the caller's promise for this op, the next, and the one after it.
        unsafe {
            let second = op.add(1);
            the::<F>()(cpu, &*op, &*second);
            next(cpu, second)
        }
    }
    run::<F>
}

/// The handler of the op after the last instruction of a block: RIP is its place.
pub(crate) unsafe extern "sysv64-unwind" fn end(cpu: &mut Cpu, op: *const Op) -> Chain {
    // SAFETY: the caller's promise.
    unsafe {
        cpu.s.rip = cpu.this_rip(&*op);
        cpu.onward()
    }
}

/// The instructions of a block, and what ends their chain.
#[derive(Debug)]
pub struct Sequence(Box<[Op]>);

impl Sequence {
    /// The sequence of `ops`, whose last one was made by [`branch`] or is
    /// followed by offset `off` of the page.
    pub(crate) fn new(ops: &[Op], off: u16) -> Self {
        let end = Op { run: end, off, len: 0, ..Op::NONE };
        Sequence(ops.iter().copied().chain([end]).collect())
    }

    /// The instructions.
    pub fn ops(&self) -> &[Op] {
        &self.0[..self.0.len() - 1]
    }

    /// Executes them, and the blocks that follow.
    ///
    /// # Safety
    /// They are those of `Cpu::block`, which the cache of the processor's engine keeps.
    #[inline(always)]
    pub(crate) unsafe fn run(&self, cpu: &mut Cpu) -> Chain {
        let first = self.0.as_ptr();
        // SAFETY: the caller's promise; the sequence ends in `end`.
        unsafe { ((*first).run)(cpu, first) }
    }

    /// Overwrites them, so that nothing of them stays in freed memory.
    pub(crate) fn wipe(&mut self) {
        crate::decode::wipe(&mut self.0);
    }
}

/// Executes one op alone.
#[cfg(test)]
pub(crate) fn run_one(cpu: &mut Cpu, op: &Op) -> Ran {
    use crate::cache::{Block, Cache, Kind, Mode, Source};
    (cpu.stop, cpu.chain_end) = (false, 0);
    let ops = Sequence::new(&[*op], op.next_off() as u16);
    let run = crate::decode::Run { ops, len: usize::from(op.len), linkable: false };
    let kind = Kind { mode: Mode::Bits64, single: true };
    let mut cache = Cache::default();
    let (_, block) = cache.insert(Block::new(0, None, kind, Source::Digest(0), run), &mut cpu.jumps);
    // SAFETY: the cache keeps it until the end of this function.
    match unsafe { cpu.enter(block) } {
        Chain::Through => Ok(Flow::Next),
        Chain::Left => cpu.left.ran,
    }
}
