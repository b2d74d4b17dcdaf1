//! Making a connection: addresses, handshake, HELLO.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mcp_proto::path::Path;
use mcp_proto::socket::quic_socket;
use mcp_proto::{
    Ack, ErrorCode, ErrorInfo, Frame, Hello, Incoming, MCP_VERSION, Message, transport,
};
use quinn::ConnectionError;
use tokio::time::Instant;

use super::reports::Reports;
use super::{Connection, End, tls};
use crate::connect::{Endpoint, Target};
use crate::error::ConnectError;

/// The next address is tried when the one before has not answered for this long.
const STAGGER: Duration = Duration::from_millis(250);

/// When one address has refused for good, the others get this long; and so does one where nothing
/// listens, for a broker that is just being started.
const GRACE: Duration = Duration::from_secs(1);

/// Before a round trip has been measured. Short, so that the first packets are repeated soon (after
/// three times this, then doubling): a broker that is just starting is found quickly.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// QUIC's transport error for a server that takes no connections.
const CONNECTION_REFUSED: u64 = 0x2;

/// Makes connections to one broker. Holds a UDP socket for each address family it needed.
pub(crate) struct Dialer {
    target: Target,
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    v4: Option<Socket>,
    v6: Option<Socket>,
}

/// A UDP socket in use by QUIC.
#[derive(Clone)]
struct Socket {
    endpoint: quinn::Endpoint,
    reports: Reports,
}

impl Dialer {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let config = tls::quic_config(endpoint)?;
        let (target, endpoint) = (endpoint.target()?, endpoint.clone());
        Ok(Self { target, endpoint, config, v4: None, v6: None })
    }

    /// Connects and opens a session, all within `timeout`.
    pub(crate) async fn dial(
        &mut self,
        mut hello: Hello,
        timeout: Duration,
    ) -> Result<(Connection, Box<Ack>), ConnectError> {
        let credentials = self.endpoint.credentials();
        hello.token = credentials.read_token()?;
        if credentials.certificate.is_some() {
            self.config = tls::quic_config(&self.endpoint)?;
        }
        let deadline = Instant::now() + timeout;
        let addresses = tokio::time::timeout_at(deadline, self.target.resolve())
            .await
            .map_err(|_| self.target.unknown("no answer in time"))??;
        let quic = self.race(&addresses, deadline, timeout).await?;
        let address = quic.remote_address();
        let reports = self.slot(address).as_ref().map(|it| it.reports.clone()).unwrap_or_default();
        let name = &self.target.server_name;
        match tokio::time::timeout_at(deadline, open(quic, name, hello, reports)).await {
            Ok(result) => result,
            Err(_) => {
                let problem = format!("no answer to HELLO within {timeout:?}");
                Err(ConnectError::Broken { address, problem })
            }
        }
    }

    /// Tries the addresses, each a little after the one before; the first to answer is taken.
    async fn race(
        &mut self,
        addresses: &[SocketAddr],
        mut deadline: Instant,
        timeout: Duration,
    ) -> Result<quinn::Connection, ConnectError> {
        let mut attempts = FuturesUnordered::new();
        let mut rest = addresses.iter();
        let mut failure: Option<ConnectError> = None;
        let mut next_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(result) = attempts.next() => match result {
                    Ok(quic) => return Ok(quic),
                    Err(error) => {
                        next_at = Instant::now();
                        keep_clearest(&mut failure, error, &mut deadline);
                    }
                },
                () = tokio::time::sleep_until(next_at), if rest.len() > 0 => {
                    next_at = Instant::now() + STAGGER;
                    if let Some(address) = rest.next() {
                        match self.connect(*address) {
                            Ok(attempt) => attempts.push(attempt),
                            Err(error) => {
                                next_at = Instant::now();
                                keep_clearest(&mut failure, error, &mut deadline);
                            }
                        }
                    }
                }
                () = tokio::time::sleep_until(deadline) => break,
                else => break,
            }
            if attempts.is_empty() && rest.len() == 0 {
                break;
            }
        }
        let address = addresses[addresses.len() - 1];
        Err(failure.unwrap_or(ConnectError::Unreachable { address, after: timeout }))
    }

    fn connect(
        &mut self,
        address: SocketAddr,
    ) -> Result<impl Future<Output = Result<quinn::Connection, ConnectError>> + use<>, ConnectError>
    {
        let Socket { endpoint, reports } = self.socket(address)?;
        let name = self.target.server_name.clone();
        let mut config = self.config.clone();
        config.transport_config(Arc::new(transport_config(address)));
        let connecting =
            endpoint.connect_with(config, address, &name).map_err(|error| match error {
                quinn::ConnectError::InvalidServerName(name) => ConnectError::Config {
                    field: "server_name",
                    problem: format!("{name:?} is not a DNS name or an IP address"),
                },
                quinn::ConnectError::EndpointStopping => {
                    // Its socket failed; the next attempt opens another.
                    *self.slot(address) = None;
                    ConnectError::Socket { problem: error.to_string() }
                }
                error => ConnectError::Socket { problem: error.to_string() },
            })?;
        Ok(async move {
            let told = async {
                reports.about(address).await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                result = connecting => result.map_err(|error| refusal(address, &name, &error)),
                () = told => Err(ConnectError::NotListening { address }),
            }
        })
    }

    fn slot(&mut self, address: SocketAddr) -> &mut Option<Socket> {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    fn socket(&mut self, address: SocketAddr) -> Result<Socket, ConnectError> {
        let slot = self.slot(address);
        if let Some(socket) = slot {
            return Ok(socket.clone());
        }
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let unusable = |error: std::io::Error| ConnectError::Socket { problem: error.to_string() };
        let socket = UdpSocket::bind(any).map_err(unusable)?;
        let most = transport::MAX_UDP_PAYLOAD_BYTES;
        let config = transport::endpoint_config(most);
        let runtime = Arc::new(quinn::TokioRuntime);
        let reports = Reports::watch(&socket);
        let socket = quic_socket(socket, most, &*runtime, None).map_err(unusable)?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, socket, runtime)
            .map_err(unusable)?;
        Ok(slot.insert(Socket { endpoint, reports }).clone())
    }
}

/// QUIC's settings for a connection there.
fn transport_config(address: SocketAddr) -> quinn::TransportConfig {
    let most = transport::MAX_UDP_PAYLOAD_BYTES;
    let mut config = transport::transport_config(transport::IDLE_TIMEOUT, most, Path::to(address));
    // The broker opens no streams.
    config.max_concurrent_bidi_streams(0u8.into()).initial_rtt(INITIAL_RTT);
    config
}

/// Of several failures, the one that says most; after one that won't pass, the rest is not waited
/// for as long.
fn keep_clearest(failure: &mut Option<ConnectError>, error: ConnectError, deadline: &mut Instant) {
    if !error.is_transient() {
        *deadline = (*deadline).min(Instant::now() + GRACE);
    }
    if failure.as_ref().is_none_or(ConnectError::is_transient) {
        *failure = Some(error);
    }
}

/// What a failed handshake, or a connection closed before ACK, means.
fn refusal(address: SocketAddr, server_name: &str, error: &ConnectionError) -> ConnectError {
    let broken = || ConnectError::Broken { address, problem: error.to_string() };
    match error {
        ConnectionError::TransportError(it) => {
            tls::handshake_error(address, server_name, it.code.into(), &it.reason)
                .unwrap_or_else(broken)
        }
        ConnectionError::ConnectionClosed(it) => {
            let code = u64::from(it.error_code);
            if code == CONNECTION_REFUSED {
                let message = "it takes no more connections now: try again later";
                return refused(ErrorInfo::new(ErrorCode::LimitExceeded, message));
            }
            tls::refusal(address, code).unwrap_or_else(broken)
        }
        ConnectionError::VersionMismatch => ConnectError::Protocol {
            address,
            problem: "it speaks no version of QUIC that is spoken here".to_owned(),
        },
        ConnectionError::TimedOut => {
            ConnectError::Unreachable { address, after: transport::IDLE_TIMEOUT }
        }
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => broken(),
    }
}

fn refused(info: ErrorInfo) -> ConnectError {
    let info = Box::new(info);
    match info.code {
        ErrorCode::UnsupportedVersion => ConnectError::Version(info),
        _ => ConnectError::Refused(info),
    }
}

/// Opens the lane and a session on it.
async fn open(
    quic: quinn::Connection,
    server_name: &str,
    hello: Hello,
    reports: Reports,
) -> Result<(Connection, Box<Ack>), ConnectError> {
    let address = quic.remote_address();
    let roles = hello.roles();
    let (send, recv) =
        quic.open_bi().await.map_err(|error| refusal(address, server_name, &error))?;
    let mut connection = Connection::new(quic, send, recv, reports);
    connection.link.lane.push(&Message::Hello(Box::new(hello)), &Bytes::new());
    connection.link.flush_soon();
    match answer(&mut connection).await {
        Ok(ack) => {
            connection.reader.session.open(roles);
            // Those of earlier attempts, while nothing listened: they would end this connection.
            connection.reports.discard();
            Ok((connection, ack))
        }
        Err(error) => {
            let code = match &error {
                ConnectError::Version(_) => ErrorCode::UnsupportedVersion,
                ConnectError::Protocol { .. } => ErrorCode::UnexpectedFrame,
                _ => ErrorCode::Internal,
            };
            connection.link.abort(Some(code), &error.to_string());
            Err(error)
        }
    }
}

/// The answer to HELLO.
async fn answer(connection: &mut Connection) -> Result<Box<Ack>, ConnectError> {
    let address = connection.link.address();
    let protocol = |problem: String| ConnectError::Protocol { address, problem };
    let ended = |end: End| match end {
        End::Closed { code: Some(code), message } => refused(ErrorInfo::new(code, message)),
        End::Closed { code: None, message } => ConnectError::Broken { address, problem: message },
        End::Refused(code) => tls::refusal(address, code).unwrap_or_else(|| ConnectError::Broken {
            address,
            problem: format!("QUIC error {code:#x}"),
        }),
        End::Broken(problem) => ConnectError::Broken { address, problem },
        End::Violation(_, problem) => protocol(problem),
        End::Silent(_) | End::Left => {
            ConnectError::Broken { address, problem: "it ended".to_owned() }
        }
    };

    loop {
        let Some(incoming) = connection.next().map_err(|error| protocol(error.to_string()))? else {
            connection.read().await.map_err(ended)?;
            continue;
        };
        match incoming {
            Incoming::Frame(Frame { message: Message::Ack(ack), .. }) => {
                check(&ack)?;
                return Ok(ack);
            }
            Incoming::Frame(Frame { message: Message::Error(info), .. }) => {
                return Err(refused(*info));
            }
            Incoming::Frame(Frame { message: Message::Goaway(goaway), .. }) => {
                return Err(refused(ErrorInfo::new(goaway.code, goaway.message)));
            }
            Incoming::Frame(Frame { message, .. }) | Incoming::BodyTooLarge { message, .. } => {
                return Err(protocol(format!("it answers HELLO with {}", message.kind())));
            }
            Incoming::Invalid(invalid) => return Err(protocol(invalid.to_string())),
            Incoming::Unknown { .. } => {}
        }
    }
}

fn check(ack: &Ack) -> Result<(), ConnectError> {
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(&ack.mcp_version) != major(MCP_VERSION) {
        let message = format!(
            "it speaks {}, and {MCP_VERSION} is spoken here: use a client of its version",
            ack.mcp_version
        );
        return Err(refused(ErrorInfo::new(ErrorCode::UnsupportedVersion, message)));
    }
    Ok(())
}
