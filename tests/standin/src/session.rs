//! One client, from PRELOGIN to the end of its connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::engine::{Engine, Phase, WIRE_VERSION};
use crate::error::ServerError;
use crate::errorlog;
use crate::execute::{Parameters, Session};
use crate::statements::declared_names;
use crate::storage::database::State;
use crate::tds::login::Login;
use crate::tds::packet::{self, Message};
use crate::tds::prelogin::{self, Encryption};
use crate::tds::reply::Reply;
use crate::tds::rpc::{self, Call};
use crate::tds::tls::Transport;
use crate::tds::{Reader, invalid};

/// A client that has not logged in by then is dropped.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// What LOGINACK says; drivers show it, none needs a certain text.
const PROGRAM: &str = "SQL Edge stand-in";

const BEGIN: u16 = 5;
const COMMIT: u16 = 7;
const ROLLBACK: u16 = 8;
/// In a commit or rollback: a new transaction shall begin at once.
const BEGIN_AFTERWARDS: u8 = 0x01;

/// Serves a client. An error is a client that broke the protocol or went away, which is nobody's concern here.
pub async fn serve(engine: Arc<Engine>, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let greeting = tokio::time::timeout(LOGIN_TIMEOUT, log_in(&engine, Transport::new(tcp), peer));
    let Some((transport, session)) = greeting.await.map_err(|_| io::ErrorKind::TimedOut)?? else {
        return Ok(());
    };
    let (read, write) = tokio::io::split(transport);
    let (sender, requests) = mpsc::channel(4);
    let reading = tokio::spawn(forward(read, sender));
    let served = Conversation {
        engine,
        session,
        write,
        requests,
    }
    .run()
    .await;
    reading.abort();
    served
}

/// Negotiates and checks the login; `None` when the client was turned away.
async fn log_in(
    engine: &Arc<Engine>,
    mut transport: Transport,
    peer: SocketAddr,
) -> io::Result<Option<(Transport, Session)>> {
    let Some(hello) = packet::read_message(&mut transport).await? else {
        return Ok(None);
    };
    if hello.kind != packet::PRELOGIN {
        return Err(invalid("a connection must start with PRELOGIN"));
    }
    let (answer, encryption) = prelogin::negotiate(engine.settings.tls, prelogin::client_encryption(&hello.body)?);
    send(&mut transport, &prelogin::reply(WIRE_VERSION, answer)).await?;
    match (encryption, &engine.tls) {
        (Encryption::Refused, _) => return Ok(None),
        (Encryption::LoginOnly | Encryption::All, Some(acceptor)) => transport = transport.encrypt(acceptor).await?,
        (Encryption::None | Encryption::LoginOnly | Encryption::All, _) => {}
    }
    let Some(request) = packet::read_message(&mut transport).await? else {
        return Ok(None);
    };
    if request.kind != packet::LOGIN7 {
        return Err(invalid("PRELOGIN must be followed by LOGIN7"));
    }
    if encryption == Encryption::LoginOnly {
        transport = transport.decrypt();
    }
    let login = Login::parse(&request.body)?;
    let mut reply = Reply::to_batch();
    match admit(engine, &login) {
        Ok(database) => {
            reply.login(PROGRAM, WIRE_VERSION, &database);
            send(&mut transport, &reply.into_bytes()).await?;
            Ok(Some((transport, Session::new(Arc::clone(engine), database))))
        }
        Err(refusal) => {
            errorlog::error(
                "Logon",
                refusal.error.number,
                refusal.error.class,
                &refusal.logged(&login, peer),
            );
            reply.failed(&refusal.error);
            send(&mut transport, &reply.into_bytes()).await?;
            transport.shutdown().await?;
            Ok(None)
        }
    }
}

/// Why a login was refused: the client learns less than the log.
struct Refusal {
    error: ServerError,
    reason: &'static str,
}

impl Refusal {
    fn logged(&self, login: &Login, peer: SocketAddr) -> String {
        let application = if login.application.is_empty() {
            "unnamed"
        } else {
            &login.application
        };
        format!(
            "{}{} [CLIENT: {}, {application}]",
            self.error.text,
            self.reason,
            peer.ip()
        )
    }
}

/// The database that the login starts in.
fn admit(engine: &Engine, login: &Login) -> Result<String, Refusal> {
    let refuse = |error, reason| Err(Refusal { error, reason });
    match engine.phase() {
        Phase::Recovering => return refuse(ServerError::recovering(&login.user), ""),
        Phase::Stopping { .. } => return refuse(ServerError::shutting_down(), ""),
        Phase::Ready => {}
    }
    if !engine.is_password(&login.user, &login.password) {
        let known = login.user.eq_ignore_ascii_case("sa");
        let reason = if known {
            " Reason: Password did not match that for the login provided."
        } else {
            " Reason: Could not find a login matching the name provided."
        };
        return refuse(ServerError::login_failed(&login.user), reason);
    }
    let name = if login.database.is_empty() {
        "master"
    } else {
        &login.database
    };
    match engine.database(name) {
        Some(database) if database.state() == State::Online => Ok(database.name.clone()),
        Some(_) => refuse(
            ServerError::cannot_open_database(name),
            " Reason: The database is not online.",
        ),
        None => refuse(
            ServerError::cannot_open_database(name),
            " Reason: There is no such database.",
        ),
    }
}

/// Reads requests ahead, so that an attention or a hang-up is seen while a statement runs.
async fn forward(mut from: ReadHalf<Transport>, to: mpsc::Sender<Message>) {
    while let Ok(Some(message)) = packet::read_message(&mut from).await {
        if to.send(message).await.is_err() {
            return;
        }
    }
}

struct Conversation {
    engine: Arc<Engine>,
    session: Session,
    write: WriteHalf<Transport>,
    requests: mpsc::Receiver<Message>,
}

/// What became of a request.
enum Outcome {
    Answered(Reply, Result<(), ServerError>),
    GivenUp,
    HungUp,
}

impl Conversation {
    async fn run(mut self) -> io::Result<()> {
        let mut phase = self.engine.watch_phase();
        loop {
            let stopping = phase.wait_for(|phase| matches!(phase, Phase::Stopping { .. }));
            let request = tokio::select! {
                request = self.requests.recv() => request,
                _ = stopping => None,
            };
            let Some(request) = request else { break };
            if request.kind == packet::ATTENTION {
                // its request was answered before the attention came
                self.acknowledge_attention(Reply::to_batch()).await?;
                continue;
            }
            match self.answer(&request).await? {
                Outcome::Answered(reply, result) => {
                    send(&mut self.write, &reply.into_bytes()).await?;
                    if let Some(checkpoint) = self.session.shutdown {
                        self.engine.enter(Phase::Stopping { checkpoint });
                    }
                    if result.is_err_and(|error| error.ends_session()) {
                        break;
                    }
                }
                Outcome::GivenUp => {
                    let mut reply = Reply::to_batch();
                    self.session.abandon(&mut reply);
                    self.acknowledge_attention(reply).await?;
                }
                Outcome::HungUp => break,
            }
        }
        self.write.shutdown().await
    }

    async fn answer(&mut self, request: &Message) -> io::Result<Outcome> {
        let Self { session, requests, .. } = self;
        let working = answer(session, request);
        tokio::select! {
            biased;
            answered = working => answered.map(|(reply, result)| Outcome::Answered(reply, result)),
            next = requests.recv() => match next {
                Some(message) if message.kind == packet::ATTENTION => Ok(Outcome::GivenUp),
                Some(_) => Err(invalid("a request came before the last one was answered")),
                None => Ok(Outcome::HungUp),
            },
        }
    }

    async fn acknowledge_attention(&mut self, mut reply: Reply) -> io::Result<()> {
        reply.done(true, None);
        send(&mut self.write, &reply.into_bytes()).await
    }
}

async fn answer(session: &mut Session, request: &Message) -> io::Result<(Reply, Result<(), ServerError>)> {
    let is_procedure = request.kind == packet::RPC;
    let mut reply = if is_procedure {
        Reply::to_procedure()
    } else {
        Reply::to_batch()
    };
    if request.resets {
        session.reset(&mut reply);
    }
    let body = request.after_headers()?;
    let result = match request.kind {
        packet::SQL_BATCH => {
            let sql = crate::tds::decode_utf16(body)?;
            session.batch(&sql, &Parameters::new(), &mut reply).await
        }
        packet::RPC => {
            let result = call(session, rpc::parse(body)?, &mut reply).await;
            reply.procedure_done(result.is_err());
            result
        }
        packet::TRANSACTION => {
            let result = transaction(session, body, &mut reply).await?;
            match &result {
                Ok(()) => reply.done(false, None),
                Err(error) => reply.failed(error),
            }
            result
        }
        other => return Err(invalid(format!("a message of type 0x{other:02X} is not a request"))),
    };
    Ok((reply, result))
}

async fn call(session: &mut Session, call: Call, reply: &mut Reply) -> Result<(), ServerError> {
    let refusal = match call {
        Call::ExecuteSql {
            sql,
            declarations,
            parameters,
        } => {
            let declared = declared_names(&declarations);
            let named = parameters.into_iter().enumerate().map(|(index, (name, value))| {
                let name = if name.is_empty() {
                    declared.get(index).cloned().unwrap_or_default()
                } else {
                    name
                };
                (name, value)
            });
            return session.batch(&sql, &named.collect(), reply).await;
        }
        Call::Unknown(name) => ServerError::no_procedure(&name),
        Call::UnknownType(number) => ServerError::parameter_type(number),
    };
    reply.failed(&refusal);
    Err(refusal)
}

/// A request of the transaction manager; drivers with transactions of their own use it in place of statements.
async fn transaction(session: &mut Session, body: &[u8], reply: &mut Reply) -> io::Result<Result<(), ServerError>> {
    let mut reader = Reader::new(body);
    let kind = reader.u16()?;
    let result = match kind {
        BEGIN => {
            session.begin(reply);
            return Ok(Ok(()));
        }
        COMMIT => session.commit(reply).await,
        ROLLBACK => session.roll_back(reply),
        other => return Ok(Err(ServerError::transaction_request(other))),
    };
    if result.is_ok() && !reader.is_empty() {
        reader.b_varchar()?;
        if !reader.is_empty() && reader.u8()? & BEGIN_AFTERWARDS != 0 {
            session.begin(reply);
        }
    }
    Ok(result)
}

async fn send<W: AsyncWriteExt + Unpin>(to: &mut W, body: &[u8]) -> io::Result<()> {
    to.write_all(&packet::packets(packet::REPLY, body)).await?;
    to.flush().await
}
