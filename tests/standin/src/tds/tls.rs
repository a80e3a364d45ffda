//! TLS as TDS 7.x does it: handshake bytes travel inside PRELOGIN packets, afterwards TLS wraps the bare stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::invalid;
use super::packet::{self, HEADER, PRELOGIN};

/// An acceptor with a certificate of our own making, like the engine makes one when none is configured.
///
/// TLS 1.2 only: the handshake-in-packets scheme has no place for the tickets that TLS 1.3 sends afterwards.
pub fn self_signed(host: &str) -> Result<TlsAcceptor, Box<dyn std::error::Error>> {
    let certified = rcgen::generate_simple_self_signed(vec![host.to_owned(), "localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    // with ENCRYPT_OFF the stream goes on in clear, where a late ticket would be read as a packet
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A client's stream, in clear or encrypted.
pub enum Transport {
    /// Bytes as they come.
    Clear(Wire),
    /// Inside TLS.
    Encrypted(Box<TlsStream<Wire>>),
}

impl Transport {
    /// A stream that has not said anything yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self::Clear(Wire { tcp, handshake: None })
    }

    /// Does the TLS handshake.
    pub async fn encrypt(self, acceptor: &TlsAcceptor) -> io::Result<Self> {
        let Self::Clear(mut wire) = self else { return Ok(self) };
        wire.handshake = Some(Handshake::default());
        let mut stream = acceptor.accept(wire).await?;
        stream.get_mut().0.handshake = None;
        Ok(Self::Encrypted(Box::new(stream)))
    }

    /// Drops TLS without closing it, as `ENCRYPT_OFF` wants it after the login packet.
    pub fn decrypt(self) -> Self {
        match self {
            Self::Clear(wire) => Self::Clear(wire),
            Self::Encrypted(stream) => Self::Clear(stream.into_inner().0),
        }
    }
}

/// The TCP stream; during the handshake it packs what is written and unpacks what is read.
pub struct Wire {
    tcp: TcpStream,
    handshake: Option<Handshake>,
}

#[derive(Default)]
struct Handshake {
    /// Header bytes read so far of the packet that is being read.
    header: Vec<u8>,
    /// Payload bytes of that packet still to come.
    payload: usize,
    /// Written, not yet packed: one flight becomes one message.
    unpacked: Vec<u8>,
    /// Packed, not yet sent.
    packed: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, handshake } = self.get_mut();
        let Some(handshake) = handshake else {
            return Pin::new(tcp).poll_read(cx, buffer);
        };
        while handshake.payload == 0 {
            let mut rest = [0; HEADER];
            let mut part = ReadBuf::new(&mut rest[handshake.header.len()..]);
            ready!(Pin::new(&mut *tcp).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            handshake.header.extend(part.filled());
            if handshake.header.len() == HEADER {
                if handshake.header[0] != PRELOGIN {
                    return Poll::Ready(Err(invalid("a TLS handshake must travel in PRELOGIN packets")));
                }
                let length = usize::from(u16::from_be_bytes([handshake.header[2], handshake.header[3]]));
                handshake.payload = length.saturating_sub(HEADER);
                handshake.header.clear();
            }
        }
        let wanted = handshake.payload.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(wanted));
        ready!(Pin::new(tcp).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        handshake.payload -= count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tcp, handshake } = self.get_mut();
        match handshake {
            None => Pin::new(tcp).poll_write(cx, bytes),
            Some(handshake) => {
                handshake.unpacked.extend(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, handshake } = self.get_mut();
        if let Some(handshake) = handshake {
            if !handshake.unpacked.is_empty() {
                handshake.packed.extend(packet::packets(PRELOGIN, &handshake.unpacked));
                handshake.unpacked.clear();
            }
            while !handshake.packed.is_empty() {
                let count = ready!(Pin::new(&mut *tcp).poll_write(cx, &handshake.packed))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                handshake.packed.drain(..count);
            }
        }
        Pin::new(tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(wire) => Pin::new(wire).poll_read(cx, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(wire) => Pin::new(wire).poll_write(cx, bytes),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(wire) => Pin::new(wire).poll_flush(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
