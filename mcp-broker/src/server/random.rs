//! Random bytes from the system.

use std::io;

use mcp_proto::transport::crypto_provider;

use super::error::StartError;

/// So many of them, fit for keys.
pub(super) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    crypto_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| StartError::System(io::Error::other("no random numbers")))?;
    Ok(bytes)
}
