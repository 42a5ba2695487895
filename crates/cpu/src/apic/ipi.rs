//! Interprocessor interrupts: the ICR, and who a message is for (*SDM vol. 3A
//! §10.6*).

use super::{Apic, Effect, Gp, Mode, error};

/// Delivery mode of a message (*§10.6.1, §10.5.1, §10.11.2*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To every processor addressed.
    Fixed,
    /// To the one addressed that has the lowest priority.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI.
    StartUp,
    /// External interrupt, by LINT pins and I/O APICs only.
    ExtInt,
}

impl Delivery {
    /// From the three bits of an I/O APIC entry, an MSI or an LVT register;
    /// `None` for what is reserved there.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            7 => Delivery::ExtInt,
            _ => return None,
        })
    }
}

/// Whom a message is for. All ones is everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The APIC with this ID.
    Physical(u32),
    /// Those whose LDR matches.
    Logical(u32),
    /// Everybody, with the sender.
    AllIncludingSelf,
    /// Everybody but the sender.
    AllExcludingSelf,
}

impl Destination {
    /// From the 8-bit destination of an I/O APIC entry, an MSI or an xAPIC's
    /// ICR, where 0xff is everybody.
    #[must_use]
    pub fn from_8bit(dest: u8, logical: bool) -> Self {
        let dest = if dest == 0xff { u32::MAX } else { u32::from(dest) };
        if logical { Destination::Logical(dest) } else { Destination::Physical(dest) }
    }
}

/// A message to other APICs; always edge triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// Full APIC ID of the sender.
    pub source: u32,
    /// Whom it is for.
    pub dest: Destination,
    /// What it is.
    pub mode: Delivery,
    /// Vector; for a start-up IPI the page number.
    pub vector: u8,
}

/// The logical x2APIC ID of an APIC (*§10.12.10.2*): cluster in bits 31:16, one
/// of 16 bits below.
#[must_use]
pub fn x2apic_ldr(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}

/// Lowest-priority arbitration (*§10.6.2.4*): of the candidates, given as index
/// and [`Apic::ppr`], the first with the lowest priority.
pub fn lowest_priority(candidates: impl IntoIterator<Item = (usize, u8)>) -> Option<usize> {
    candidates.into_iter().min_by_key(|c| c.1).map(|c| c.0)
}

const ICR_LOGICAL: u32 = 1 << 11;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_LEVEL: u32 = 1 << 15;
/// Vector, delivery mode, destination mode, level, trigger mode, shorthand;
/// delivery status (bit 12) is read-only.
pub(super) const ICR_LOW_WRITABLE: u32 = 0x000c_cfff;

impl Apic {
    /// Full APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// Whether a message from `source` to `dest` is for this APIC.
    #[must_use]
    pub fn receives(&self, source: u32, dest: Destination) -> bool {
        match dest {
            Destination::Physical(d) => self.matches(d, false),
            Destination::Logical(d) => self.matches(d, true),
            Destination::AllIncludingSelf => self.mode() != Mode::Disabled,
            Destination::AllExcludingSelf => self.mode() != Mode::Disabled && source != self.config.id,
        }
    }

    /// Whether a destination means this APIC (*§10.6.2, §10.12.10*); all ones is
    /// everybody, in xAPIC mode 0xff as well.
    #[must_use]
    pub fn matches(&self, dest: u32, logical: bool) -> bool {
        match (self.mode(), logical) {
            (Mode::Disabled, _) => false,
            _ if dest == u32::MAX => true,
            (Mode::XApic, _) if dest == 0xff => true,
            (Mode::XApic, _) if dest > 0xff => false,
            (Mode::XApic, false) => dest == self.config.id & 0xff,
            (Mode::X2Apic, false) => dest == self.config.id,
            (Mode::XApic, true) => {
                let (mda, id) = (dest, self.ldr >> 24);
                match self.dfr >> 28 {
                    // Flat model: one bit an APIC.
                    0xf => mda & id != 0,
                    // Cluster model: cluster 15 is every cluster.
                    0x0 => (mda >> 4 == 0xf || mda >> 4 == id >> 4) && mda & id & 0xf != 0,
                    _ => false,
                }
            }
            (Mode::X2Apic, true) => {
                let ldr = x2apic_ldr(self.config.id);
                dest >> 16 == ldr >> 16 && dest & ldr & 0xffff != 0
            }
        }
    }

    /// What writing the low half of the ICR sends. Combinations that the SDM
    /// calls invalid (*table 10-3*) send nothing.
    pub(super) fn send(&mut self) -> Option<Effect> {
        let low = self.icr as u32;
        let vector = low as u8;
        let mode = match low >> 8 & 7 {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            // INIT level de-assert does nothing since the Pentium 4 (§10.6.1).
            5 if low & (ICR_LEVEL | ICR_ASSERT) == ICR_LEVEL => return None,
            5 => Delivery::Init,
            6 => Delivery::StartUp,
            _ => return None,
        };
        if matches!(mode, Delivery::Fixed | Delivery::LowestPriority) && vector < 16 {
            self.raise_error(error::SEND_ILLEGAL_VECTOR);
            return None;
        }
        let logical = low & ICR_LOGICAL != 0;
        let dest = match (low >> 18 & 3, self.mode()) {
            (0, Mode::X2Apic) => {
                let d = (self.icr >> 32) as u32;
                if logical { Destination::Logical(d) } else { Destination::Physical(d) }
            }
            (0, _) => Destination::from_8bit((self.icr >> 56) as u8, logical),
            // Self and all including self: fixed only.
            (1 | 2, _) if mode != Delivery::Fixed => return None,
            (1, _) => {
                self.accept(vector, false);
                return None;
            }
            (2, _) => Destination::AllIncludingSelf,
            _ => Destination::AllExcludingSelf,
        };
        Some(Effect::Send(Ipi { source: self.config.id, dest, mode, vector }))
    }

    /// The x2APIC's SELF IPI register (*§10.12.11*).
    pub(super) fn self_ipi(&mut self, value: u32) -> Result<(), Gp> {
        let vector = u8::try_from(value).map_err(|_| Gp)?;
        if vector < 16 {
            self.raise_error(error::SEND_ILLEGAL_VECTOR);
        } else {
            self.accept(vector, false);
        }
        Ok(())
    }
}
