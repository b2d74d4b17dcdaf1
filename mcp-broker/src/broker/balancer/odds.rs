//! Whom a policy would choose, told without choosing.

use super::Member;

/// Most members that are told: as many as an explanation lists.
pub(in super::super) const MAX_ODDS: usize = 256;

/// Whom [`Balancer::pick`](super::Balancer::pick) may choose next.
#[derive(Debug, Default)]
pub(in super::super) struct Odds {
    /// How likely each is, the likeliest first, without those beyond the [`MAX_ODDS`] likeliest.
    pub(in super::super) members: Vec<(Member, f64)>,
    /// How it is decided, as a part of a sentence.
    pub(in super::super) how: String,
}

impl Odds {
    pub(super) fn new(mut members: Vec<(Member, f64)>, how: impl Into<String>) -> Self {
        members.retain(|(_, odds)| *odds > 0.0);
        members.sort_by(|(a, odds_a), (b, odds_b)| odds_b.total_cmp(odds_a).then(a.cmp(b)));
        members.truncate(MAX_ODDS);
        Self { members, how: how.into() }
    }

    /// One, or nobody.
    pub(in super::super) fn certain(member: Option<Member>, how: impl Into<String>) -> Self {
        Self::new(member.map(|member| (member, 1.0)).into_iter().collect(), how)
    }
}
