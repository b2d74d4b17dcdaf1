//! Peers whose handshake is not what it should be: one that takes more than it is given, since it believes
//! that the broker allowed it any number of streams, of any length (only what the broker says in the
//! handshake is changed on its way to QUIC); and one that offers TLS 1.2.

use std::any::Any;
use std::sync::Arc;

use bytes::Buf;
use quinn::VarInt;
use quinn_proto::coding::Codec;
use quinn_proto::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

/// `initial_max_data` to `initial_max_streams_uni` (RFC 9000, 18.2).
const LIMITS: std::ops::RangeInclusive<u32> = 0x04..=0x09;
const ANY: VarInt = VarInt::from_u32(1 << 29);

/// `supported_versions` of a ClientHello that offers TLS 1.3 only (RFC 8446, 4.2.1), and 1.2 only.
const TLS_13: [u8; 7] = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
const TLS_12: [u8; 7] = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x03];

/// What a handshake lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// To this side: what the broker allows.
    Limits,
    /// To the broker: the version of TLS that is spoken.
    Version,
}

/// TLS that lies.
pub(crate) struct Lying(pub(crate) Arc<dyn ClientConfig>, pub(crate) Lie);

impl ClientConfig for Lying {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = self.0.clone().start_session(version, server_name, params)?;
        Ok(Box::new(Liar(session, self.1)))
    }
}

struct Liar(Box<dyn Session>, Lie);

impl Session for Liar {
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(honest) = self.0.transport_parameters()? else { return Ok(None) };
        if self.1 != Lie::Limits {
            return Ok(Some(honest));
        }
        let (mut honest_bytes, mut bytes) = (Vec::new(), Vec::new());
        honest.write(&mut honest_bytes);
        let mut rest = &honest_bytes[..];
        while rest.has_remaining() {
            let id = VarInt::decode(&mut rest).unwrap();
            let length = VarInt::decode(&mut rest).unwrap();
            let value = rest.copy_to_bytes(length.into_inner() as usize);
            if !LIMITS.map(VarInt::from_u32).any(|limit| limit == id) {
                put(&mut bytes, id, &value);
            }
        }
        let mut any = Vec::new();
        ANY.encode(&mut any);
        for id in LIMITS {
            put(&mut bytes, VarInt::from_u32(id), &any);
        }
        Ok(Some(TransportParameters::read(Side::Client, &mut &bytes[..]).unwrap()))
    }

    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(bytes)
    }

    fn write_handshake(&mut self, to: &mut Vec<u8>) -> Option<Keys> {
        let from = to.len();
        let keys = self.0.write_handshake(to);
        if self.1 == Lie::Version
            && let Some(at) = to[from..].windows(TLS_13.len()).position(|it| it == TLS_13)
        {
            to[from + at..][..TLS_12.len()].copy_from_slice(&TLS_12);
        }
        keys
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

fn put(parameters: &mut Vec<u8>, id: VarInt, value: &[u8]) {
    id.encode(parameters);
    VarInt::from_u32(value.len() as u32).encode(parameters);
    parameters.extend_from_slice(value);
}
