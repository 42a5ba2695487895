//! Test signers. Their private keys are public: they sign enclaves in tests
//! and nothing else trusts them.

use crypto_bigint::modular::{MontyForm, MontyParams};
use crypto_bigint::{Odd, U3072};
use sgx_abi::Sigstruct;
use sha2::{Digest, Sha256};

use super::{LEN, PADDING, PADDING_LEN};

/// An RSA key of 3072 bits with exponent 3.
#[derive(Clone, Copy, Debug)]
pub struct Signer {
    modulus: U3072,
    private_exponent: U3072,
}

impl Signer {
    /// One signer.
    pub const A: Signer = Signer {
        modulus: U3072::from_be_hex(
            "9ef4c949517b39b623ea8f6adab534bb79c5b1344721cc35238d6352c5a9ad8599e96348254491206e092fa99f33d310\
         1045e3a41192985d50e992644724f1df2a8f8eeba9be4e37e90e5cbaab57d2ad92143ef99646ff4f314052d2528a85c4\
         d8b6864614a67c46baf60c89353f43b04094c28e2c50120a08d8150db467c9b7ec8df103222b3cd71e10b1c8427f9b4f\
         ab091bf86a8f8c9f5e2566fabdae179b1b7fd31d3c42ee76c4482aa815d9f9c48a5c363704ee381c4d1e425ddac95ee9\
         213a2db77f0a6ba9b0616e61066f509acb1cce1c1088485b1933f1d600383d7da5bf6955ce789691b08230e2acb57a5f\
         2962bf213b6ed8e6c22e4083cd81e815422fccfc977cef342e7b565d9ff0b0ddc161a5d4c704269f0fc7aa95d578de69\
         5d3662e9bdb68f5f779a496e1991160a003b7f3fc53bdbca0d84e4a4874ce3d9b4c5696417ff1aa8623bfb8297b41a52\
         6c988f06457efbe4cd13f5b7c1ac5125c995be2199bb207fc754ce2618dee5821074a84c93699241e8618809a8033cc5",
        ),
        private_exponent: U3072::from_be_hex(
            "69f88630e0fcd12417f1b4f1e723787cfbd920cd84c132ce17b3978c83c673ae669b97856e2db6159eb0ca7114cd3760\
         0ad9426d610c65938b4661982f6df694c70a5f47c67edecff0b43dd1c78fe1c90c0d7f510ed9ff8a20d58c8c370703d8\
         9079aed96319a82f274eb306237f827580632c5ec835615c05e5635e78453125485ea0acc172288f6960768581aa678a\
         720612a59c5fb314e96e44a7291eba6767aa8cbe282c9ef9d8301c700e91512db192cecf589ed012de142c3e91db949a\
         5e771ca63d9baa35f7f0aa718ffc51286bfed4b70fbc2fd9d3d0267be7ffa58d334b643b043d795e96ab85f20931679b\
         38b879ed4009b1d2d886fe78f028993ad1994b5c01acaba8361ff9b1e08cfc79dfedd2c4bff34dfceaedfee67d75c49c\
         a5a5020f19aa40dde6f5bc1cb07158086218746601ae8012386574eec9d9319543ee380e53aecf783b11e3fa0ee053af\
         4a35103f590643b83693a65120cce5d5436d5c7062c4d04c6610c538bca6d08dbc61330f5ec6b3cad51fa2868f87eeeb",
        ),
    };
    /// Another.
    pub const B: Signer = Signer {
        modulus: U3072::from_be_hex(
            "d1e5cc5dc2f10595aa031f6c8c3ed6bf163adc1052295c56b07047c4646344216b3d541bb97da9cbc4410f1e9dcdf8e0\
         794a822eb3ad29af57c307abc8c073cda051efd258b77c58e0194fa17bc751f367c4077a87712af37d4c5ec6735bcb09\
         a46aa956a0f4a6c886e7f8c8d7c23f3f2e858917829bb82d24bd021597da6c034139ac893c4c330652b6daaa970c9569\
         7d35814bdc5f7fd769058687920a3e55ed8e10e58dfdb444759f626a633eac7d6d652d441d534bb3420582541ee2ebc8\
         eb0638e70de79d4c10c5a91b7d3837b6701f405e34d8ebc38bc2f3a07a741207c1c9d5aedc61a6b6b567f3404a31c709\
         5b5af0d11394b0fdf4b602cc9803076c59b371b2caff003c34edfd073a67a431dd4c67b2e1e9e168882e788cb2c7f1ef\
         8a616db518ecc441872a8647ff14f31c05ecb29394ee462dbbb3386420bf411e2f467fbee71321d666dbc422c5614024\
         eb091f33a3caf9db38126954cee00d9f6a7eb625145eaa7c3f96a847f330781ccbfecb0c887d46575a4467d40a2028cf",
        ),
        private_exponent: U3072::from_be_hex(
            "8bee883e81f603b91c0214f30829e47f64273d6036c63d8f204ada82ed9782c0f228e2bd2653c687d82b5f69be895095\
         a631ac1f2273711f8fd75a7285d5a289158bf536e5cfa83b4010dfc0fd2f8bf79a82afa704f61ca253883f2ef792875b\
         c2f1c639c0a319db049aa5db3a817f7f7459060fac67d01e187e0163ba919d5780d11db0d2dd77598c79e71c64b30e46\
         537900dd3d94ffe4f0ae59afb6b17ee3f3b40b43b3fe782da3bf96f1977f1da8f398c8d8138cdd222c03ac38149747da\
         10d5148e85c35541b5497e2954202a074d49cfb0a210500ed00c637f08feff32228cf02683e84d9c42d518e5fe883195\
         941d5a358f80c306d0454e7be53587a2ae554d37e37cdb0a1e9c309bf8cc64c4645d72beee597602cea23c1a82fc7b47\
         7462ae3dde4276b44154a4e1aabebfc62262b92339d2693ae1e0697f0bb43b7ac30788180ebb6b029d6ac46c95ab6900\
         7becfa876c1091c3c86ade6fa4b15bc00b0d07f7022664f45a8cde532af7c37b0b38216c19452156f70223e35da2250b",
        ),
    };

    /// MRSIGNER of enclaves this key signs.
    pub fn mrsigner(&self) -> [u8; 32] {
        Sha256::digest(self.modulus.to_le_bytes()).into()
    }

    /// Modulus and private exponent, highest byte first; the public exponent is 3.
    pub fn key(&self) -> ([u8; LEN], [u8; LEN]) {
        (self.modulus.to_be_bytes(), self.private_exponent.to_be_bytes())
    }

    /// A SIGSTRUCT with right headers and nothing else, not yet signed.
    pub fn blank() -> Sigstruct {
        Sigstruct {
            header: Sigstruct::HEADER,
            header2: Sigstruct::HEADER2,
            exponent: Sigstruct::EXPONENT,
            date: 0x2026_0101,
            ..Sigstruct::default()
        }
    }

    /// Sets MODULUS, SIGNATURE, Q1 and Q2 for the fields that are signed.
    pub fn sign(&self, sig: &mut Sigstruct) {
        let [first, second] = sig.signed_parts();
        let hash = Sha256::new().chain_update(first).chain_update(second).finalize();
        let mut encoded = [0; LEN];
        encoded[..PADDING_LEN].copy_from_slice(&PADDING);
        encoded[PADDING_LEN..].copy_from_slice(&hash);
        self.sign_encoded(sig, &encoded);
    }

    /// Sets MODULUS and makes the other three those of an encoded message of the
    /// caller's choice, highest byte first.
    pub fn sign_encoded(&self, sig: &mut Sigstruct, encoded: &[u8; LEN]) {
        let odd = Odd::new(self.modulus).expect("an RSA modulus is odd");
        let message = MontyForm::new(&U3072::from_be_slice(encoded), MontyParams::new_vartime(odd));
        let s = message.pow(&self.private_exponent).retrieve();
        sig.modulus = self.modulus.to_le_bytes();
        sig.signature = s.to_le_bytes();
        (sig.q1, sig.q2) =
            super::quotients(&sig.modulus, &sig.signature).expect("an RSA modulus is not zero");
    }
}
