//! Which names identities may have.

use crate::broker::Identity;

/// Longest name: that of a SPIFFE id in use, with room.
const MAX_IDENTITY_BYTES: usize = 256;

/// Names that mean something else.
const RESERVED: [&str; 2] = [Identity::ANONYMOUS, "broker"];

/// Whether a proof may be for this name.
///
/// # Errors
/// What is wrong with it, to be read after what it is.
pub(super) fn check_identity(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_IDENTITY_BYTES {
        return Err(format!("has {} bytes; 1 to {MAX_IDENTITY_BYTES} are allowed", name.len()));
    }
    if !name.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err("has characters that are not printable ASCII".to_owned());
    }
    if RESERVED.contains(&name) {
        return Err(format!("is {name:?}, which nobody's name can be"));
    }
    Ok(())
}
