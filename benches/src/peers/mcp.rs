//! This broker, driven through `mcp-client`'s public API alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use mcp_broker::broker::ActionRules;
use mcp_broker::{Broker, Config};
use mcp_client::{ActionName, Client, Delivery, Endpoint, HandlerError, Job, Worker};
use serde::{Deserialize, Serialize};

use super::{ECHO, Target};

/// What most networks carry: the 1500 bytes of Ethernet less the headers of IPv6 and UDP.
pub(crate) const NETWORK_UDP_PAYLOAD_BYTES: u16 = 1452;

/// What a worker takes ahead that does: with 4 slots, 64 tasks in all.
pub(crate) const PREFETCH: u32 = 60;

/// What is not as by default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct BrokerSettings {
    pub(crate) max_udp_payload_bytes: Option<u16>,
    pub(crate) busy_poll_us: Option<u64>,
    /// Where its journal lies; tasks are durable then.
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) rules: ActionRules,
    pub(crate) listen: Option<SocketAddr>,
}

/// Runs a broker with the default configuration but for `settings`, as `mcp-broker serve` does: on
/// one thread, with TLS by a certificate of its own, and with the admin listener.
pub(crate) async fn serve(settings: BrokerSettings, ready: impl FnOnce(Target)) -> Result<()> {
    let mut config = Config::default();
    config.listen.set_port(0);
    config.listen = settings.listen.unwrap_or(config.listen);
    let is_durable = settings.state_dir.is_some();
    config.state_dir = settings.state_dir;
    // The same one when it is started again.
    config.tls.dev = is_durable;
    // Always on, as it should be where a broker runs.
    config.admin = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into());
    // Here all that come are behind one address.
    config.limits.max_address_connections = config.limits.max_connections;
    config.limits.address_connections_per_s = 0;
    config.scheduling = settings.rules;
    if let Some(bytes) = settings.max_udp_payload_bytes {
        config.limits.max_udp_payload_bytes = bytes;
    }
    config.busy_poll_us = settings.busy_poll_us.unwrap_or(config.busy_poll_us);
    let broker = Broker::builder().config(config).start().await?;
    let ca_pem = broker.ca_pem().context("a certificate of its own")?.to_owned();
    let admin = broker.admin_addr().context("its admin listener")?;
    ready(Target::Mcp { address: broker.local_addr(), ca_pem, admin, is_durable });
    broker.failed().await;
    anyhow::bail!("the broker failed")
}

pub(super) async fn work(
    address: SocketAddr,
    ca_pem: &str,
    slots: u32,
    prefetch: u32,
    ready: impl FnOnce(),
) -> Result<()> {
    let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
    let worker = Worker::builder(endpoint(address, ca_pem)).slots(slots).prefetch(prefetch);
    let worker = worker.handler(ECHO, echo).start().await?;
    ready();
    anyhow::bail!("the worker stopped: {:?}", worker.closed().await)
}

pub(super) struct Caller {
    client: Client,
    action: ActionName,
    delivery: Delivery,
}

impl Caller {
    pub(super) async fn connect(
        address: SocketAddr,
        ca_pem: &str,
        is_durable: bool,
    ) -> Result<Self> {
        let client = Client::builder(endpoint(address, ca_pem)).connect().await?;
        let delivery = if is_durable { Delivery::Durable } else { Delivery::Fast };
        Ok(Self { client, action: ActionName::try_from(ECHO)?, delivery })
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        let task = self.client.task(self.action.clone()).delivery(self.delivery).body(body);
        Ok(task.call().await?.body)
    }
}

pub(crate) fn endpoint(address: SocketAddr, ca_pem: &str) -> Endpoint {
    Endpoint::new(address.to_string()).ca_pem(ca_pem)
}
