//! One connection to a broker: its lane, and the frames that arrive on it.

mod dial;
mod driver;
mod end;
mod liveness;
mod reconnect;
mod reports;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use mcp_proto::lane::Lane;
use mcp_proto::{
    DecodeError, ErrorCode, ErrorInfo, Frame, FrameCodec, Goaway, Incoming, InvalidMessage, Limits,
    Message, Session, Side,
};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

pub(crate) use dial::Dialer;
pub(crate) use driver::{Control, Peer, Stop, Timeouts, run};
use end::End;
use reports::Reports;

/// What HELLO says of this SDK.
pub(crate) const SDK: &str = concat!("mcp-client-rust/", env!("CARGO_PKG_VERSION"));

/// Packets' payloads taken from QUIC at once.
const READ_CHUNKS: usize = 32;

/// Frames handled at once: few enough to stay in the CPU's cache.
const BATCH_FRAMES: usize = 64;

/// The broker does not read what is sent to it.
const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// How long closing waits for what is still to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where frames to the broker go.
pub(crate) trait Outbox {
    /// Appends a frame.
    fn push(&mut self, message: &Message, body: &Bytes);
}

/// The sending half: what tasks and handlers use.
pub(crate) struct Link {
    quic: quinn::Connection,
    lane: Lane<SendStream>,
    /// The broker has all that was written, after the lane is finished.
    received: Shared<BoxFuture<'static, ()>>,
}

impl Outbox for &Link {
    fn push(&mut self, message: &Message, body: &Bytes) {
        self.lane.push(message, body);
    }
}

/// No connection: nothing to send to.
impl<O: Outbox> Outbox for Option<O> {
    fn push(&mut self, message: &Message, body: &Bytes) {
        if let Some(out) = self {
            out.push(message, body);
        }
    }
}

impl<O: Outbox> Outbox for &mut O {
    fn push(&mut self, message: &Message, body: &Bytes) {
        (**self).push(message, body);
    }
}

#[cfg(test)]
impl Outbox for Vec<Frame> {
    fn push(&mut self, message: &Message, body: &Bytes) {
        Vec::push(self, Frame { message: message.clone(), body: body.clone() });
    }
}

impl Link {
    /// Appends a frame without a body.
    pub(crate) fn push(&self, message: &Message) {
        self.lane.push(message, &Bytes::new());
    }

    /// Lets the writer task write what was pushed.
    pub(crate) fn flush_soon(&self) {
        self.lane.flush_soon();
    }

    /// Bytes pushed and not yet written.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lane.queued_bytes()
    }

    /// Waits until at most `bytes` are queued, or the connection is gone.
    pub(crate) async fn drained(&self, bytes: usize) {
        self.lane.drained(bytes).await;
    }

    fn push_error(&self, code: ErrorCode, message: impl Into<String>) {
        let error = Message::Error(Box::new(ErrorInfo::new(code, message)));
        self.lane.push(&error, &Bytes::new());
    }

    /// Writes what was pushed, and waits until the broker has received it.
    async fn finish(&self) {
        self.lane.finish();
        let received = async {
            self.lane.drained(0).await;
            self.received.clone().await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, received).await;
    }

    /// Closes, and waits until that is sent. `None`: in an orderly way.
    async fn close(&self, code: Option<ErrorCode>, message: &str) {
        let sent_before = self.quic.stats().udp_tx.datagrams;
        self.abort(code, message);
        // The packet that says so is written by a task of quinn's, which may end with the runtime
        // before it came to that.
        for _ in 0..100 {
            if self.quic.stats().udp_tx.datagrams > sent_before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Closes at once, if it is not closed already.
    fn abort(&self, code: Option<ErrorCode>, message: &str) {
        let code = VarInt::from_u32(code.map_or(0, |code| code as u32));
        self.quic.close(code, message.as_bytes());
        self.lane.close();
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lane.is_closed()
    }

    /// The broker's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Why the connection is no more.
    fn end(&self) -> End {
        match self.quic.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => End::Closed {
                code: u32::try_from(close.error_code.into_inner())
                    .ok()
                    .and_then(ErrorCode::from_u32),
                message: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            Some(ConnectionError::ConnectionClosed(close)) => End::Refused(close.error_code.into()),
            Some(error) => End::Broken(error.to_string()),
            None => End::Broken("the broker ended the lane".to_owned()),
        }
    }
}

/// A connection with an open session.
pub(crate) struct Connection {
    pub(crate) link: Arc<Link>,
    reader: Reader,
    /// Of the socket that it uses.
    reports: Reports,
}

impl Drop for Connection {
    /// Given up, as when no ACK came in time: not an orderly close, which would end the
    /// registration or session that the broker may have resumed.
    fn drop(&mut self) {
        self.link.abort(Some(ErrorCode::LeaseExpired), "given up");
    }
}

/// A frame for the client or worker that holds the connection.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message, and its body.
    Frame(Frame),
    /// A message whose body was over the limit and is dropped.
    TooLarge(Message, usize),
    /// A message about a task that could be read, with a field that is wrong.
    Invalid(InvalidMessage),
}

/// The receiving half.
struct Reader {
    stream: RecvStream,
    codec: FrameCodec,
    /// Taken from QUIC; of so many, those before `next` are used up.
    chunks: [Bytes; READ_CHUNKS],
    count: usize,
    next: usize,
    session: Session,
}

/// What of a batch concerns the connection itself.
#[derive(Default)]
struct Notices {
    /// The highest number of a PONG: of the driver's own PINGs, which are above the peers', the
    /// latest.
    pong: Option<u64>,
    goaway: Option<Goaway>,
}

impl Connection {
    fn new(quic: quinn::Connection, send: SendStream, recv: RecvStream, reports: Reports) -> Self {
        let received = send.stopped().map(drop).boxed().shared();
        let link = Arc::new(Link { quic, lane: Lane::new(send), received });
        let writer = link.clone();
        tokio::spawn(async move { writer.lane.drive().await });
        let reader = Reader {
            stream: recv,
            codec: FrameCodec::new(&Limits::default()),
            chunks: Default::default(),
            count: 0,
            next: 0,
            session: Session::new(Side::Dialler),
        };
        Self { link, reader, reports }
    }

    /// Waits for more bytes, once [`next`](Self::next) has none left. Cancel-safe.
    async fn read(&mut self) -> Result<(), End> {
        let Reader { stream, chunks, count, next, .. } = &mut self.reader;
        match stream.read_chunks(chunks).await {
            Ok(Some(read)) => {
                (*count, *next) = (read, 0);
                Ok(())
            }
            Ok(None) | Err(_) => Err(self.link.end()),
        }
    }

    fn next(&mut self) -> Result<Option<Incoming>, DecodeError> {
        let Reader { codec, chunks, count, next, .. } = &mut self.reader;
        while *next < *count {
            if let Some(incoming) = codec.decode(&mut chunks[*next])? {
                return Ok(Some(incoming));
            }
            // It is empty, but may be a part of a large allocation.
            chunks[*next] = Bytes::new();
            *next += 1;
        }
        Ok(None)
    }

    /// Takes frames that have arrived, answers those that concern the connection only, and appends
    /// the others to `batch`. Says whether that were all; the answers are to be flushed.
    fn take(&mut self, batch: &mut Vec<Received>) -> Result<(Notices, bool), End> {
        let mut notices = Notices::default();
        let mut is_last = false;
        for _ in 0..BATCH_FRAMES {
            let incoming =
                self.next().map_err(|error| End::Violation(error.code(), error.to_string()))?;
            let Some(incoming) = incoming else {
                is_last = true;
                break;
            };
            match incoming {
                Incoming::Frame(frame) => {
                    self.check(&frame.message)?;
                    self.take_frame(frame, &mut notices, batch);
                }
                Incoming::BodyTooLarge { message, body_bytes } => {
                    self.check(&message)?;
                    batch.push(Received::TooLarge(message, body_bytes));
                }
                Incoming::Unknown { kind } => {
                    let text = format!("frame kind {kind} is not known here");
                    self.link.push_error(ErrorCode::UnknownFrame, text);
                }
                Incoming::Invalid(invalid) if invalid.task_id.is_some() => {
                    batch.push(Received::Invalid(invalid));
                }
                Incoming::Invalid(invalid) => {
                    self.link.push_error(ErrorCode::InvalidMessage, invalid.to_string());
                }
            }
        }
        if self.link.queued_bytes() > MAX_QUEUED_BYTES {
            let text = "the broker does not read".to_owned();
            return Err(End::Violation(ErrorCode::SlowConsumer, text));
        }
        Ok((notices, is_last))
    }

    fn check(&self, message: &Message) -> Result<(), End> {
        let kind = message.kind();
        let unexpected = |error: mcp_proto::UnexpectedFrame| {
            End::Violation(ErrorCode::UnexpectedFrame, error.to_string())
        };
        self.reader.session.check_received(kind).map_err(unexpected)
    }

    fn take_frame(&self, frame: Frame, notices: &mut Notices, batch: &mut Vec<Received>) {
        match frame.message {
            Message::Ping(ping) => {
                self.link.lane.push(&Message::Pong(ping.seq), &Bytes::new());
            }
            Message::Goaway(goaway) => notices.goaway = Some(goaway),
            Message::Error(error) => tracing::warn!(%error, "the broker reports an error"),
            Message::Pong(seq) => {
                notices.pong = notices.pong.max(Some(seq));
                batch.push(Received::Frame(frame));
            }
            _ => batch.push(Received::Frame(frame)),
        }
    }
}
