//! NATS: request and reply through a queue group.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures_util::StreamExt;

use super::ECHO;

/// Commands that wait for the connection: more than are ever in flight, so that none waits for room.
const CAPACITY: usize = 64 * 1024;

pub(super) async fn work(
    address: SocketAddr,
    ca_file: Option<PathBuf>,
    slots: u32,
    ready: impl FnOnce(),
) -> Result<()> {
    let client = connect(address, ca_file).await?;
    let tasks = client.queue_subscribe(ECHO, "workers".to_owned()).await?;
    client.flush().await?;
    ready();
    tasks
        .for_each_concurrent(slots as usize, async |task| {
            if let Some(reply_to) = task.reply {
                // Fails only when the connection is gone, and then the stream ends.
                let _ = client.publish(reply_to, task.payload).await;
            }
        })
        .await;
    anyhow::bail!("the subscription ended")
}

pub(super) struct Caller(Client);

impl Caller {
    pub(super) async fn connect(address: SocketAddr, ca_file: Option<PathBuf>) -> Result<Self> {
        Ok(Self(connect(address, ca_file).await?))
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        Ok(self.0.request(ECHO, body).await?.payload)
    }
}

pub(super) async fn connect(address: SocketAddr, ca_file: Option<PathBuf>) -> Result<Client> {
    let options = ConnectOptions::new()
        .client_capacity(CAPACITY)
        .subscription_capacity(CAPACITY)
        .skip_subject_validation(true)
        .read_buffer_capacity(u16::MAX);
    Ok(match ca_file {
        None => options.connect(format!("nats://{address}")).await?,
        Some(file) => {
            let options = options.require_tls(true).add_root_certificates(file);
            options.connect(format!("tls://{address}")).await?
        }
    })
}
