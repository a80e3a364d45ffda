//! Asks an engine whether it is there, with the first packet of its own protocol.
//!
//! A process that is stopped or stuck still accepts TCP connections, because the kernel does that for it; only an answer
//! shows that it runs. PRELOGIN needs no password, and the engine answers it while it still recovers its databases.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// PRELOGIN as clients send it. Packet: type 0x12, end of message, length 47. Options (token, offset, length): version,
/// encryption, instance, thread, MARS; then their values. Encryption 2 means "not supported": we do not mean to log in.
const PRELOGIN: [u8; 47] = [
    0x12, 0x01, 0, 47, 0, 0, 1, 0, //
    0, 0, 26, 0, 6, //
    1, 0, 32, 0, 1, //
    2, 0, 33, 0, 1, //
    3, 0, 34, 0, 4, //
    4, 0, 38, 0, 1,    //
    0xFF, //
    0, 0, 0, 0, 0, 0, // version
    2, // encryption
    0, // instance
    0, 0, 0, 0, // thread
    0, // MARS
];

/// Type of the packet that carries an answer.
const ANSWER: u8 = 0x04;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens.
    #[error("no connection to the engine at {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection was accepted, and then nothing came.
    #[error("the engine at {address} accepted the connection but did not answer within {within:?}")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// How long we waited.
        within: Duration,
    },
    /// The connection broke.
    #[error("the engine at {address} closed the connection without an answer: {source}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else listens there.
    #[error("what listens at {address} does not speak the engine's protocol")]
    Foreign {
        /// Where.
        address: SocketAddr,
    },
}

/// Sends PRELOGIN and waits for its answer; all of it within `within`.
#[allow(clippy::disallowed_methods)] // the guard's own deadline; no decision of the operator
pub fn ask(address: SocketAddr, within: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + within;
    let timed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent { address, within },
        _ => Error::Broken { address, source },
    };
    let mut stream =
        TcpStream::connect_timeout(&address, within).map_err(|source| Error::Connect { address, source })?;
    stream.set_write_timeout(Some(within)).map_err(timed)?;
    stream.write_all(&PRELOGIN).map_err(timed)?;

    // the header, and the first option of the answer, which must be the version (token 0)
    let mut answer = [0; 9];
    let mut filled = 0;
    while filled < answer.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Silent { address, within });
        }
        stream.set_read_timeout(Some(left)).map_err(timed)?;
        match stream.read(&mut answer[filled..]) {
            Ok(0) => {
                return Err(Error::Broken {
                    address,
                    source: io::ErrorKind::UnexpectedEof.into(),
                });
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed(error)),
        }
    }
    let length = u16::from_be_bytes([answer[2], answer[3]]);
    if answer[0] == ANSWER && usize::from(length) > answer.len() && answer[8] == 0 {
        Ok(())
    } else {
        Err(Error::Foreign { address })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::time::{Duration, Instant};

    use super::{Error, PRELOGIN, ask};

    /// A server for one connection: reads PRELOGIN, then does what it is told.
    fn server(then: impl FnOnce(&mut std::net::TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; PRELOGIN.len()];
            stream.read_exact(&mut request).expect("a request");
            assert_eq!(request, PRELOGIN);
            then(&mut stream);
        });
        address
    }

    /// What an engine answers: version 16.0, no encryption, no instance, no thread, no MARS.
    fn answer() -> Vec<u8> {
        let values = [16, 0, 0x0f, 0xa1, 0, 0, 2, 0, 0];
        let options = [
            0, 0, 26, 0, 6, 1, 0, 32, 0, 1, 2, 0, 33, 0, 1, 3, 0, 34, 0, 0, 4, 0, 34, 0, 1, 0xFF,
        ];
        let length = u8::try_from(8 + options.len() + values.len()).expect("short");
        [&[4, 1, 0, length, 0, 0, 1, 0][..], &options, &values].concat()
    }

    #[test]
    fn the_request_is_consistent_in_itself() {
        assert_eq!(
            usize::from(u16::from_be_bytes([PRELOGIN[2], PRELOGIN[3]])),
            PRELOGIN.len()
        );
        let payload = &PRELOGIN[8..];
        let end = payload
            .iter()
            .position(|byte| *byte == 0xFF)
            .expect("an end of the options");
        let options: Vec<(usize, usize)> = payload[..end]
            .chunks(5)
            .map(|option| (usize::from(option[2]), usize::from(option[4])))
            .collect();
        let mut next = end + 1;
        for (offset, length) in options {
            assert_eq!(offset, next);
            next += length;
        }
        assert_eq!(next, payload.len());
    }

    #[test]
    fn an_engine_that_answers_is_alive() {
        let address = server(|stream| stream.write_all(&answer()).expect("sent"));
        ask(address, Duration::from_secs(5)).expect("an answer");
    }

    #[test]
    fn an_answer_in_pieces_counts() {
        let address = server(|stream| {
            for byte in answer() {
                stream.write_all(&[byte]).expect("sent");
                stream.flush().expect("sent");
            }
        });
        ask(address, Duration::from_secs(5)).expect("an answer");
    }

    #[test]
    fn a_listener_that_accepts_and_never_answers_is_not_alive() {
        // nobody accepts here: the kernel completes the connection from the backlog, as it does for a stopped process
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let begin = Instant::now();
        let error = ask(address, Duration::from_millis(300)).expect_err("no answer");
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&begin.elapsed()));
    }

    #[test]
    fn an_answer_that_trickles_in_too_slowly_does_not_prolong_the_limit() {
        let address = server(|stream| {
            for byte in answer() {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let error = ask(address, Duration::from_millis(350)).expect_err("too slow");
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }

    #[test]
    fn a_port_without_a_listener_is_no_engine() {
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port");
        let error = ask(address, Duration::from_secs(5)).expect_err("refused");
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }

    #[test]
    fn a_closed_connection_is_no_answer() {
        let address = server(|_| {});
        let error = ask(address, Duration::from_secs(5)).expect_err("closed");
        assert!(matches!(error, Error::Broken { .. }), "{error}");
    }

    #[test]
    fn another_protocol_is_not_the_engine() {
        let address = server(|stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").expect("sent"));
        let error = ask(address, Duration::from_secs(5)).expect_err("foreign");
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
    }
}
