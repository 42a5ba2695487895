//! Sizes, offsets and numbers against `sgx-isa`, another project's
//! transcription of the same SDM tables. Its structures carry the operand's
//! alignment and so may be padded at the end: its `UNPADDED_SIZE` is the size.

use core::mem::{align_of, offset_of};

use sgx_abi::report::ReportBody;

macro_rules! same_fields {
    ($ours:ty, $theirs:ty, { $($a:ident $(= $b:ident)?),* $(,)? }) => {
        assert_eq!(<$ours>::SIZE, <$theirs>::UNPADDED_SIZE, stringify!($ours));
        $(assert_eq!(
            offset_of!($ours, $a),
            same_fields!(@theirs $theirs, $a $(, $b)?),
            concat!(stringify!($ours), ".", stringify!($a))
        );)*
    };
    (@theirs $theirs:ty, $a:ident, $b:ident) => { offset_of!($theirs, $b) };
    (@theirs $theirs:ty, $a:ident) => { offset_of!($theirs, $a) };
}

#[test]
fn layouts_agree() {
    same_fields!(sgx_abi::Attributes, sgx_isa::Attributes, { flags, xfrm });
    same_fields!(sgx_abi::Secs, sgx_isa::Secs, {
        size, baseaddr, ssaframesize, miscselect, attributes, mrenclave, mrsigner, isvprodid, isvsvn,
    });
    same_fields!(sgx_abi::Tcs, sgx_isa::Tcs, {
        flags, ossa, cssa, nssa, oentry, ofsbase = ofsbasgx, ogsbase = ogsbasgx, fslimit, gslimit,
    });
    same_fields!(sgx_abi::Pageinfo, sgx_isa::Pageinfo, { linaddr, srcpge, secinfo, secs });
    same_fields!(sgx_abi::Secinfo, sgx_isa::Secinfo, { flags });
    same_fields!(sgx_abi::Pcmd, sgx_isa::Pcmd, { secinfo, enclaveid, mac });
    same_fields!(sgx_abi::Sigstruct, sgx_isa::Sigstruct, {
        header, vendor, date, header2, swdefined, modulus, exponent, signature, miscselect, miscmask,
        cet_attributes, cet_attributes_mask, isvfamilyid, attributes, attributemask, enclavehash,
        isvextprodid, isvprodid, isvsvn, q1, q2,
    });
    same_fields!(sgx_abi::Einittoken, sgx_isa::Einittoken, {
        valid, attributes, mrenclave, mrsigner, cpusvnle, isvprodidle, isvsvnle, maskedmiscselectle,
        maskedattributesle, keyid, mac,
    });
    same_fields!(sgx_abi::Targetinfo, sgx_isa::Targetinfo, { measurement, attributes, miscselect });
    same_fields!(sgx_abi::Report, sgx_isa::Report, { keyid, mac });
    assert_eq!(ReportBody::SIZE, sgx_isa::Report::TRUNCATED_SIZE);
    macro_rules! body {
        ($($a:ident $(= $b:ident)?),* $(,)?) => {
            $(assert_eq!(
                offset_of!(ReportBody, $a),
                same_fields!(@theirs sgx_isa::Report, $a $(, $b)?),
                stringify!($a)
            );)*
        };
    }
    body!(
        cpusvn,
        miscselect,
        cet_attributes,
        isvextprodid = isvextnprodid,
        attributes,
        mrenclave,
        mrsigner,
        configid,
        isvprodid,
        isvsvn,
        configsvn,
        isvfamilyid,
        reportdata,
    );
    same_fields!(sgx_abi::Keyrequest, sgx_isa::Keyrequest, {
        keyname, keypolicy, isvsvn, cpusvn, attributemask, keyid, miscmask,
    });
}

#[test]
fn operand_alignments_agree() {
    assert_eq!(sgx_abi::Pageinfo::ALIGN as usize, align_of::<sgx_isa::Pageinfo>());
    assert_eq!(sgx_abi::Secinfo::ALIGN as usize, align_of::<sgx_isa::Secinfo>());
    assert_eq!(sgx_abi::Pcmd::ALIGN as usize, align_of::<sgx_isa::Pcmd>());
    assert_eq!(sgx_abi::Sigstruct::ALIGN as usize, align_of::<sgx_isa::Sigstruct>());
    assert_eq!(sgx_abi::Einittoken::ALIGN as usize, align_of::<sgx_isa::Einittoken>());
    assert_eq!(sgx_abi::Targetinfo::ALIGN as usize, align_of::<sgx_isa::Targetinfo>());
    assert_eq!(sgx_abi::Report::ALIGN as usize, align_of::<sgx_isa::Report>());
    assert_eq!(sgx_abi::Keyrequest::ALIGN as usize, align_of::<sgx_isa::Keyrequest>());
}

#[test]
fn numbers_agree() {
    for n in 0..0x200u32 {
        // sgx-isa knows one ENCLU leaf more (EVERIFYREPORT2) and some fewer
        if let Ok(theirs) = sgx_isa::Encls::try_from(n) {
            let ours = sgx_abi::Encls::from_u32(n).expect("leaf of ENCLS");
            assert_eq!(ours.name(), format!("{theirs:?}").to_uppercase());
        }
        if let Ok(theirs) = sgx_isa::Enclu::try_from(n).map_err(drop)
            && theirs != sgx_isa::Enclu::EVerifyReport2
        {
            let ours = sgx_abi::Enclu::from_u32(n).expect("leaf of ENCLU");
            assert_eq!(ours.name(), format!("{theirs:?}").to_uppercase());
        }
        if let Ok(theirs) = sgx_isa::ErrorCode::try_from(n)
            && theirs != sgx_isa::ErrorCode::InvalidReportMacStruct
        {
            let ours = sgx_abi::Status::from_u32(n).expect("code");
            let ours =
                if n == 7 { "LOCKFAIL".into() } else { ours.name().replace("SGX_", "").replace('_', "") };
            assert_eq!(ours, format!("{theirs:?}").to_uppercase(), "code {n}");
        }
        assert_eq!(
            sgx_isa::Keyname::try_from(n as u16).is_ok(),
            sgx_abi::KeyName::from_u16(n as u16).is_some()
        );
        if let Ok(theirs) = sgx_isa::PageType::try_from(n as u8) {
            let ours = sgx_abi::PageType::from_u8(n as u8).expect("page type");
            assert_eq!(ours.name(), format!("PT_{theirs:?}").to_uppercase());
        }
    }
    assert_eq!(sgx_abi::Sigstruct::HEADER, sgx_isa::SIGSTRUCT_HEADER1);
    assert_eq!(sgx_abi::Sigstruct::HEADER2, sgx_isa::SIGSTRUCT_HEADER2);
}

#[test]
fn flag_bits_agree() {
    use sgx_abi::{AttributeFlags as A, KeyPolicy as K, SecinfoFlags as S};
    use sgx_isa::{AttributesFlags as TheirA, Keypolicy as TheirK, SecinfoFlags as TheirS};
    for (ours, theirs) in [
        (A::INIT, TheirA::INIT),
        (A::DEBUG, TheirA::DEBUG),
        (A::MODE64BIT, TheirA::MODE64BIT),
        (A::PROVISIONKEY, TheirA::PROVISIONKEY),
        (A::EINITTOKEN_KEY, TheirA::EINITTOKENKEY),
        (A::CET, TheirA::CET),
        (A::KSS, TheirA::KSS),
    ] {
        assert_eq!(ours.bits(), theirs.bits());
    }
    for (ours, theirs) in [
        (S::R, TheirS::R),
        (S::W, TheirS::W),
        (S::X, TheirS::X),
        (S::PENDING, TheirS::PENDING),
        (S::MODIFIED, TheirS::MODIFIED),
        (S::PR, TheirS::PR),
        (S::PAGE_TYPE, TheirS::PT_MASK),
    ] {
        assert_eq!(ours.bits(), theirs.bits());
    }
    assert_eq!(K::MRENCLAVE.bits(), TheirK::MRENCLAVE.bits());
    assert_eq!(K::MRSIGNER.bits(), TheirK::MRSIGNER.bits());
    assert_eq!(sgx_abi::MiscSelect::EXINFO.bits(), sgx_isa::Miscselect::EXINFO.bits());
}
