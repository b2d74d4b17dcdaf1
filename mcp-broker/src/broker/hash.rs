//! Hashes that are the same at every start of every broker.

/// FNV-1a, 64 bits, with an avalanche at the end. Source: Fowler, Noll, Vo,
/// <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub(super) fn fnv1a(bytes: &[u8], salt: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ salt;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    avalanche(hash)
}

/// Spreads a change of any bit over all of them: MurmurHash3's `fmix64`. Source: Appleby,
/// <https://github.com/aappleby/smhasher>.
pub(super) fn avalanche(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
