//! A process full of hostile peers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use mcp_proto::{ActionName, ErrorCode, Frame, Message, Ping, Send, Task};
use quinn::{Connection, ConnectionError};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::kind::Attack;
use super::peer::{Dialler, Lane, encoded};
use crate::peers::{ECHO, Target};

/// Handshakes that they have under way at the beginning.
const CONCURRENCY: usize = 64;

/// Before it connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two bytes of a slow one.
const SLOW: Duration = Duration::from_secs(1);

/// What one writes at once in a flood.
const FLOOD_BYTES: usize = 16 * 1024;

/// Bytes of an input whose result is not read.
const BODY_BYTES: usize = 60 * 1024;

/// What they saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The most connections that they had at once.
    pub(super) most: u64,
    /// Handshakes that succeeded, and those that did not.
    pub(super) connected: u64,
    pub(super) refused: u64,
    /// How their connections ended.
    pub(super) ends: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Notes {
    open: Cell<u64>,
    seen: RefCell<Seen>,
}

/// Attacks with so many connections for `time`.
pub(crate) async fn attack(
    target: Target,
    attack: Attack,
    connections: u32,
    time: Duration,
) -> Result<Seen> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("a broker of another kind") };
    let until = Instant::now() + time;
    let dialler = Rc::new(Dialler::new(address, &ca_pem)?);
    let notes = Rc::new(Notes::default());
    let room = Rc::new(tokio::sync::Semaphore::new(CONCURRENCY));
    for _ in 0..connections {
        let (dialler, notes, room) = (dialler.clone(), notes.clone(), room.clone());
        spawn_local(async move {
            loop {
                let permit = room.acquire().await;
                let dialled = dialler.dial().await;
                drop(permit);
                match dialled {
                    Ok(quic) => notes.connection(attack, &quic).await,
                    Err(_) => notes.seen.borrow_mut().refused += 1,
                }
                sleep(PAUSE).await;
            }
        });
    }
    tokio::time::sleep_until(until.into()).await;
    let seen = notes.seen.borrow().clone();
    Ok(seen)
}

impl Notes {
    async fn connection(&self, attack: Attack, quic: &Connection) {
        self.open.set(self.open.get() + 1);
        {
            let mut seen = self.seen.borrow_mut();
            seen.connected += 1;
            seen.most = seen.most.max(self.open.get());
        }
        let end = tokio::select! {
            end = quic.closed() => end,
            Err(_) = misbehave(attack, quic) => quic.closed().await,
        };
        self.open.set(self.open.get() - 1);
        *self.seen.borrow_mut().ends.entry(name(&end)).or_default() += 1;
    }
}

fn name(end: &ConnectionError) -> String {
    match end {
        ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner())
            .ok()
            .and_then(ErrorCode::from_u32)
            .map_or_else(|| close.error_code.to_string(), |code| code.name().to_owned()),
        other => other.to_string(),
    }
}

/// Comes to an end only with an error.
async fn misbehave(attack: Attack, quic: &Connection) -> Result<()> {
    match attack {
        Attack::Silent => std::future::pending().await,
        Attack::SlowHello => {
            let mut lane = Lane::open(quic).await?;
            byte_by_byte(&mut lane, &encoded(mcp_bench::hello(None))).await
        }
        Attack::SlowFrame => {
            let mut lane = greeted(quic).await?;
            byte_by_byte(&mut lane, &longest()).await
        }
        Attack::Promise => {
            let mut lane = greeted(quic).await?;
            lane.to.write_all(&longest()[..6]).await?;
            std::future::pending().await
        }
        Attack::Unfinished => {
            let mut lane = greeted(quic).await?;
            let frame = longest();
            lane.to.write_all(&frame[..frame.len() - 1]).await?;
            std::future::pending().await
        }
        Attack::Deaf => {
            let mut lane = greeted(quic).await?;
            for number in 0u64.. {
                let message = Message::Send(Send::new(task(quic, number)?.encode(), 60_000));
                let body = Bytes::from(vec![b'x'; BODY_BYTES]);
                lane.to.write_all(&encoded(Frame { message, body })).await?;
            }
            unreachable!("numbers end")
        }
        Attack::Pings => flood(greeted(quic).await?, &ping(), true).await,
        Attack::DeafPings => flood(greeted(quic).await?, &ping(), false).await,
        // Field 100, length-delimited, empty.
        Attack::Unknown => {
            flood(greeted(quic).await?, &[0, 0, 0, 5, 0, 3, 0xa2, 0x06, 0x00], true).await
        }
        Attack::Streams => {
            let _lane = greeted(quic).await?;
            loop {
                tokio::select! {
                    stream = quic.open_bi() => drop(stream?),
                    stream = quic.open_uni() => drop(stream?),
                }
            }
        }
        Attack::Handshakes => {
            let mut lane = Lane::open(quic).await?;
            lane.to.write_all(&[0xff; 16]).await?;
            std::future::pending().await
        }
    }
}

async fn greeted(quic: &Connection) -> Result<Lane> {
    let mut lane = Lane::open(quic).await?;
    lane.greet().await?;
    Ok(lane)
}

async fn byte_by_byte(lane: &mut Lane, bytes: &[u8]) -> Result<()> {
    for byte in bytes {
        lane.to.write_all(&[*byte]).await?;
        sleep(SLOW).await;
    }
    bail!("all is said")
}

async fn flood(lane: Lane, frame: &[u8], reads: bool) -> Result<()> {
    let (mut to, mut from) = lane.split();
    let frames = frame.repeat(FLOOD_BYTES / frame.len());
    let write = async {
        loop {
            to.write_all(&frames).await?;
            // Others have their turn.
            tokio::task::yield_now().await;
        }
    };
    let read =
        async { if reads { Lane::read_on(&mut from).await } else { std::future::pending().await } };
    tokio::select! {
        end = write => end,
        end = read => end,
    }
}

fn ping() -> Vec<u8> {
    encoded(Message::Ping(Ping::probe(1)).into()).to_vec()
}

/// A SEND with as much as is allowed of everything; its header is none, but nobody gets that far.
fn longest() -> Vec<u8> {
    let (header, body) = (mcp_proto::limits::MAX_HEADER_BYTES, mcp_proto::limits::MAX_BODY_BYTES);
    let mut bytes = Vec::with_capacity(6 + header + body);
    bytes.extend_from_slice(&(2 + header as u32 + body as u32).to_be_bytes());
    bytes.extend_from_slice(&(header as u16).to_be_bytes());
    bytes.resize(6 + header + body, 0);
    bytes
}

fn task(quic: &Connection, number: u64) -> Result<Task> {
    let id = format!("{:x}-{number:x}", quic.stable_id());
    let id = id.as_str().try_into().context("an id")?;
    Ok(Task::new(id, ActionName::try_from(ECHO)?))
}
