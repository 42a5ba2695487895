//! What the author of an enclave chooses: `[package.metadata.enclave]` of its
//! `Cargo.toml`.

use crate::sigstruct::Statement;
use enclave_abi::Settings;
use enclave_abi::build::XFRM;
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize};
use sgx_abi::{AttributeFlags, Attributes, MiscSelect};

/// The choices; each has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Heap that is there from the start: `"1M"`.
    heap: Option<Size>,
    /// What the heap may grow to on machines with SGX2: `"64M"`.
    heap_limit: Option<Size>,
    /// Stack of each thread: `"128K"`.
    stack: Option<Size>,
    /// Threads that can be inside at once.
    threads: Option<u32>,
    /// Product number, of the signer's choice.
    pub product: u16,
    /// Security version: raise it when a hole is closed.
    pub svn: u16,
    /// A debugger of the host may look in. For development only.
    pub debug: bool,
    /// Product family (KSS): 32 hexadecimal digits.
    pub family_id: Id,
    /// Extended product number (KSS): 32 hexadecimal digits.
    pub extended_product_id: Id,
    /// Key separation and sharing, also without either of those two.
    pub kss: bool,
    /// The enclave may derive the provisioning keys, which identify the platform.
    pub provision_key: bool,
    /// Exits record what a page fault was about (EXINFO). Needs a processor with SGX2.
    pub exinfo: bool,
}

/// 16 bytes that name something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Id(pub [u8; 16]);

impl std::str::FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text} is no identity: write 32 hexadecimal digits");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Bytes: a number, or text such as `"64K"`, `"16M"`, `"1G"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => size(&text).map(Self).ok_or_else(|| {
                D::Error::invalid_value(Unexpected::Str(&text), &"a size such as \"64K\" or \"16M\"")
            }),
        }
    }
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, text.as_bytes()[number.len()]),
        None => (text, b' '),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(1 << shift)
}

impl Config {
    /// What the layout is made from. A heap larger than the default limit is its own limit.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        let heap = self.heap.map_or(default.heap, |size| size.0);
        Settings {
            heap,
            heap_limit: self.heap_limit.map_or(default.heap_limit.max(heap), |size| size.0),
            stack: self.stack.map_or(default.stack, |size| size.0),
            threads: self.threads.unwrap_or(default.threads),
        }
    }

    /// What is to be signed for the enclave of this measurement; `date` as
    /// [`crate::sigstruct::date`] gives it.
    pub fn statement(&self, mrenclave: [u8; 32], date: u32) -> Statement {
        let kss = self.kss || self.family_id != Id::default() || self.extended_product_id != Id::default();
        let mut flags = AttributeFlags::MODE64BIT;
        flags.set(AttributeFlags::DEBUG, self.debug);
        flags.set(AttributeFlags::KSS, kss);
        flags.set(AttributeFlags::PROVISIONKEY, self.provision_key);
        Statement {
            mrenclave,
            attributes: Attributes { flags, xfrm: XFRM },
            miscselect: if self.exinfo { MiscSelect::EXINFO } else { MiscSelect::empty() },
            isvprodid: self.product,
            isvsvn: self.svn,
            isvfamilyid: self.family_id.0,
            isvextprodid: self.extended_product_id.0,
            date,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("4096", 4096), ("64K", 64 << 10), ("16M", 16 << 20), ("2G", 2 << 30), ("0K", 0)]
        {
            assert_eq!(size(text), Some(bytes));
        }
        for text in ["", "K", "-1K", "+1K", "1.5M", "1KB", "99999999999999999999", "18446744073709551615K"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn identities_are_16_bytes() {
        let id: Id = "000102030405060708090a0b0c0d0e0F".parse().unwrap();
        assert_eq!(id.0, std::array::from_fn(|i| i as u8));
        for wrong in ["", "00", "000102030405060708090a0b0c0d0e0g", "+00102030405060708090a0b0c0d0e0f"] {
            wrong.parse::<Id>().unwrap_err();
        }
    }

    #[test]
    fn kss_follows_from_its_identities() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.statement([0; 32], 0).attributes.flags
        };
        assert_eq!(with(|_| {}), AttributeFlags::MODE64BIT);
        for kss in
            [with(|c| c.kss = true), with(|c| c.family_id.0[3] = 1), with(|c| c.extended_product_id.0[0] = 1)]
        {
            assert_eq!(kss, AttributeFlags::MODE64BIT | AttributeFlags::KSS);
        }
    }

    #[test]
    fn a_large_heap_is_its_own_limit() {
        let large = Config { heap: Some(Size(1 << 30)), ..Config::default() }.settings();
        assert_eq!((large.heap, large.heap_limit), (1 << 30, 1 << 30));
        let settings = Config::default().settings();
        assert_eq!(settings, Settings::default());
    }
}
