//! A proof while its connection lasts.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Admission, Auth, Proof, Seen};
use crate::broker::ConnectionId;
use crate::server::audit::Audit;
use crate::server::shared::{Outbox, Shared};

/// Looks after the proof of a connection until it is dropped: ends the connection when the proof no
/// longer holds.
#[derive(Debug)]
pub(in crate::server) struct Watch(JoinHandle<()>);

impl Watch {
    /// None where there is nothing that could end.
    pub(in crate::server) fn over(
        shared: &Arc<Shared>,
        (id, peer): (ConnectionId, SocketAddr),
        admission: &Admission,
    ) -> Option<Self> {
        let proof = admission.proof.clone()?;
        let (shared, seen) = (shared.clone(), admission.seen.clone());
        Some(Self(tokio::spawn(async move {
            let why = shared.auth.no_longer_holds(&shared.audit, peer, proof, seen).await;
            shared.hold(&mut Outbox::default(), |core, now| {
                core.handle_unauthenticated(now, id, why);
            });
        })))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Auth {
    /// Waits until a proof holds no longer, and says why.
    async fn no_longer_holds(
        &self,
        audit: &Audit,
        peer: SocketAddr,
        mut proof: Proof,
        mut seen: Seen,
    ) -> String {
        loop {
            let Seen { until, changes, is_offline } = seen;
            let changed = async {
                let Some(mut changes) = changes else { return std::future::pending().await };
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = sleep(until) => {}
                () = changed => {}
            }
            match self.verify(proof) {
                Ok(Admission { identity, proof: Some(same), seen: next, .. }) => {
                    if next.is_offline && !is_offline {
                        self.note_offline(audit, &identity, peer);
                    }
                    (proof, seen) = (same, next);
                }
                Ok(_) => return "its proof is gone".to_owned(),
                Err(why) => return why,
            }
        }
    }
}
