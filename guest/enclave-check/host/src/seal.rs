//! Sealing, across enclaves and machines.

use check_interface::{CheckClient, Policy};
use enclave_host::Files;

use crate::{load, step};

const SECRET: &[u8] = b"what the enclave knows";
const NAME: &[u8] = b"its name";

/// Seals by both policies into FILE.enclave and FILE.signer.
pub fn seal(files: &Files, file: &str) -> Result<(), String> {
    let enclave = load(files)?;
    let check = CheckClient(&*enclave);
    for (policy, path) in both(file) {
        let sealed = check.seal(policy, SECRET, NAME).map_err(|e| e.to_string())??;
        step(
            &format!("{policy:?}: the secret is not in it"),
            !sealed.windows(8).any(|w| SECRET.windows(8).any(|s| s == w)),
        )?;
        let opened = check.unseal(policy, &sealed, NAME).map_err(|e| e.to_string())?;
        step(
            &format!("{policy:?}: unsealed at once"),
            opened.is_ok_and(|(data, _, current)| data == SECRET && current),
        )?;
        let refused = |sealed: &[u8], name: &[u8], policy, why: &str| {
            let result = check.unseal(policy, sealed, name).map_err(|e| e.to_string())?;
            step(&format!("refused: {why}"), result == Err(why.into()))
        };
        refused(&sealed, b"another name", policy, "Authentication")?;
        let other = if policy == Policy::Enclave { Policy::Signer } else { Policy::Enclave };
        refused(&sealed, NAME, other, "Policy")?;
        for at in [8, 40, sealed.len() - 20, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            let result = check.unseal(policy, &changed, NAME).map_err(|e| e.to_string())?;
            step(&format!("refused: byte {at} changed"), result.is_err())?;
        }
        refused(&sealed[..79], NAME, policy, "Format")?;
        std::fs::write(path, sealed).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Unseals; prints for each policy what came of it.
pub fn unseal(files: &Files, file: &str) -> Result<(), String> {
    let enclave = load(files)?;
    let check = CheckClient(&*enclave);
    for (policy, path) in both(file) {
        let sealed = std::fs::read(path).map_err(|e| e.to_string())?;
        match check.unseal(policy, &sealed, NAME).map_err(|e| e.to_string())? {
            Ok((data, svn, current)) => {
                step(&format!("{policy:?}: svn {svn}, current {current}"), data == SECRET)?;
            }
            Err(why) => println!("{policy:?}: {why}"),
        }
    }
    Ok(())
}

fn both(file: &str) -> [(Policy, String); 2] {
    [(Policy::Enclave, format!("{file}.enclave")), (Policy::Signer, format!("{file}.signer"))]
}
