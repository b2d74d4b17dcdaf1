//! The steps, each with what it found.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcp_client::{CallError, Client, ConnectError, Endpoint, ErrorCode, ErrorInfo, TlsCause};
use mcp_proto::{ALPN, MCP_VERSION};

use super::{Check, Outcome, Step};
use crate::exit::Exit;
use crate::global::{Global, cannot_connect};
use crate::settings::{Chosen, Origin, Place, Token};

/// How far clocks may be apart: beyond it brokers refuse tokens, unless their `auth.token_leeway_ms` says
/// otherwise.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// Of steps, in order.
pub(super) struct Checks {
    done: Vec<Check>,
}

impl Checks {
    /// All steps, and how the process ends.
    pub(super) async fn run(global: &Global, timeout: Duration) -> (Vec<Check>, Exit) {
        let mut checks = Self { done: Vec::new() };
        let exit = checks.connect(global, timeout).await;
        for name in Step::ALL {
            if !checks.done.iter().any(|it| it.name == name) {
                checks.add(name, Outcome::Skipped, "", None);
            }
        }
        checks.done.sort_by_key(|it| it.name);
        (checks.done, exit)
    }

    async fn connect(&mut self, global: &Global, timeout: Duration) -> Exit {
        let chosen = match global.chosen() {
            Ok(chosen) => chosen,
            Err(failure) => {
                self.fail(
                    Step::Settings,
                    &failure.message,
                    "`mcpctl context show` says what counts",
                );
                return failure.exit;
            }
        };
        let from = origin(&chosen.broker.origin);
        let endpoint = match chosen.endpoint() {
            Ok(endpoint) => endpoint,
            Err(error) => {
                match &chosen.broker.value {
                    Place::Given(address) => self.ok(Step::Settings, &format!("{address}, {from}")),
                    Place::State(dir) => {
                        self.ok(
                            Step::Settings,
                            &format!("the broker of {}, {from}", dir.display()),
                        );
                    }
                }
                return self.fail_with(&error);
            }
        };
        if let Err(error @ ConnectError::Address { .. }) = endpoint.resolve().await {
            return self.fail_with(&error);
        }
        self.ok(Step::Settings, &format!("{endpoint}, {from}"));
        let connecting =
            Client::builder(endpoint.clone()).connect_timeout(timeout).reconnect(false).connect();
        let (exit, client) = match connecting.await {
            Ok(client) => (Exit::Ok, Some(client)),
            Err(error) => (self.fail_with(&error), None),
        };
        self.explain_success(&chosen, &endpoint, client.as_ref()).await;
        let Some(client) = client else { return exit };
        let exit = self.compare_clocks(&client).await;
        client.close().await;
        exit
    }

    /// Tells of the steps that came before the one that failed.
    async fn explain_success(
        &mut self,
        chosen: &Chosen,
        endpoint: &Endpoint,
        client: Option<&Client>,
    ) {
        let failed = self.done.iter().find(|it| it.result == Outcome::Failed).map(|it| it.name);
        for step in Step::ALL.into_iter().filter(|it| *it < Step::Clock) {
            if self.done.iter().any(|it| it.name == step) {
                continue;
            }
            if failed.is_some_and(|failed| step > failed) {
                break;
            }
            let seen = match step {
                Step::Files => files(chosen),
                Step::Name => match endpoint.resolve().await {
                    Ok(addresses) => {
                        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                        addresses.join(", ")
                    }
                    Err(error) => error.to_string(),
                },
                Step::Udp => "it answers".to_owned(),
                Step::Protocol => format!("it speaks {}", String::from_utf8_lossy(ALPN)),
                Step::Tls => {
                    "its certificate is for its name, valid, and signed by the authority".into()
                }
                Step::Authentication => proof(chosen),
                Step::Version => {
                    let broker = client.and_then(Client::broker_id);
                    let broker = broker.map(|it| format!(", to broker {it}")).unwrap_or_default();
                    format!("MCP {MCP_VERSION} is spoken{broker}")
                }
                Step::Settings | Step::Clock => continue,
            };
            self.ok(step, &seen);
        }
    }

    /// The clock here and the broker's.
    async fn compare_clocks(&mut self, client: &Client) -> Exit {
        let before = SystemTime::now();
        let overview = client.overview().await;
        let took = before.elapsed().unwrap_or_default();
        let overview = match overview {
            Ok(overview) => overview,
            Err(error) => {
                let why = match error.code() {
                    Some(ErrorCode::Forbidden) => "mcp.admin.overview is not allowed",
                    _ => "it did not answer mcp.admin.overview",
                };
                let seen = format!(
                    "within the validity of the broker's certificate; the broker's time is not known: {why}"
                );
                self.ok(Step::Clock, &seen);
                return exit_of(&error);
            }
        };
        let here = before + took / 2;
        let there = UNIX_EPOCH + Duration::from_millis(overview.wall_ms);
        let (apart, side) = match here.duration_since(there) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        let seen =
            format!("{} {side} the broker's, give or take {}", shown(apart), shown(took / 2));
        if apart.saturating_sub(took / 2) <= CLOCK_TOLERANCE {
            self.ok(Step::Clock, &seen);
            return Exit::Ok;
        }
        let advice = format!(
            "set the clock here ({}), or the broker's ({}), by NTP: tokens and certificates hold by it",
            httpdate::fmt_http_date(here),
            httpdate::fmt_http_date(there)
        );
        self.fail(Step::Clock, &seen, &advice);
        Exit::Failed
    }

    /// Why there is no connection. How the process ends.
    fn fail_with(&mut self, error: &ConnectError) -> Exit {
        let (step, seen, advice) = diagnosis(error);
        self.fail(step, &seen, &advice);
        if let ConnectError::Tls { cause: TlsCause::Expired | TlsCause::NotYetValid, .. } = error {
            let now = httpdate::fmt_http_date(SystemTime::now());
            let seen = format!("here it is {now}: if that is wrong, so is what tls says");
            self.add(Step::Clock, Outcome::Skipped, &seen, None);
        }
        cannot_connect(None, error).exit
    }

    fn ok(&mut self, step: Step, seen: &str) {
        self.add(step, Outcome::Ok, seen, None);
    }

    fn fail(&mut self, step: Step, seen: &str, advice: &str) {
        self.add(step, Outcome::Failed, seen, Some(advice.to_owned()));
    }

    fn add(&mut self, name: Step, result: Outcome, seen: &str, advice: Option<String>) {
        // What a broker says may have lines, or worse.
        let seen = seen.replace('\n', "; ");
        let seen = seen.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.done.push(Check { name, result, seen, advice });
    }
}

/// At which step it failed, what was seen, and what to do.
fn diagnosis(error: &ConnectError) -> (Step, String, String) {
    let plain = |step, advice: &str| (step, error.to_string(), advice.to_owned());
    match error {
        ConnectError::Address { .. } => plain(Step::Settings, "write it as HOST:PORT"),
        ConnectError::NoTrust | ConnectError::Ca { .. } => {
            plain(Step::Files, "give the broker's ca.pem: --ca FILE, or --state DIR")
        }
        ConnectError::Credentials { .. } => {
            plain(Step::Files, "correct the file, or name another: --token-file, --cert and --key")
        }
        ConnectError::StateDir { path, problem } => (
            Step::Files,
            format!("can't read {}: {problem}", path.display()),
            "start a broker with `mcp-broker serve --dev --state DIR`, or say where it is: --state DIR, \
             --broker HOST:PORT with --ca FILE, or --context NAME"
                .to_owned(),
        ),
        ConnectError::UnknownHost { host, problem } => (
            Step::Name,
            format!("{host:?} has no address: {problem}"),
            "check how it is written, and this machine's DNS (getent hosts NAME)".to_owned(),
        ),
        ConnectError::Unreachable { address, after } => (
            Step::Udp,
            format!("no answer from {address} within {}", shown(*after)),
            "check that the broker runs there, and that UDP passes to that port: firewalls often pass \
             only TCP, and drop the rest without a word; a broker in a container needs its port \
             published as /udp"
                .to_owned(),
        ),
        ConnectError::NotListening { address } => (
            Step::Udp,
            format!("nothing listens at {address}: its host answers, and says so"),
            "start the broker there, or correct the port".to_owned(),
        ),
        ConnectError::Socket { .. } => plain(Step::Udp, "check the network and limits of this machine"),
        ConnectError::Protocol { .. } => {
            plain(Step::Protocol, "something else is at that port: correct it, or the broker's `listen`")
        }
        ConnectError::Tls { cause, problem, .. } => {
            // What rustls says of the broker's certificate is more than what the SDK advises.
            let reason = problem.rsplit_once('[').and_then(|(_, it)| it.strip_suffix(']'));
            (tls_step(*cause), reason.unwrap_or(problem).to_owned(), tls_advice(*cause))
        }
        ConnectError::Version(info) => {
            (Step::Version, info.to_string(), "use the mcpctl of the broker's version".to_owned())
        }
        ConnectError::Refused(info) => refused(info),
        ConnectError::Config { field, .. } => {
            plain(Step::Settings, &format!("correct {field}: `mcpctl context show` says where it is from"))
        }
        // ConnectError may grow.
        _ => plain(Step::Protocol, "try again; the broker's log may say more"),
    }
}

fn tls_step(cause: TlsCause) -> Step {
    match cause {
        TlsCause::Credentials => Step::Authentication,
        _ => Step::Tls,
    }
}

fn tls_advice(cause: TlsCause) -> String {
    match cause {
        TlsCause::UnknownAuthority => {
            "give the ca.pem of this very broker: a `serve --dev` of another state directory has another"
        }
        TlsCause::WrongName => "connect by a name of its certificate, or give one as --server-name",
        TlsCause::Expired => "renew the broker's certificate; see clock below",
        TlsCause::NotYetValid => "set the clock (NTP) here, or where the certificate was made; see below",
        TlsCause::Credentials => {
            "give a certificate of an authority in the broker's client_ca_file: --cert and --key"
        }
        _ => "check the broker's certificate and the authority that was given",
    }
    .to_owned()
}

fn refused(info: &ErrorInfo) -> (Step, String, String) {
    let (step, advice) = match info.code {
        ErrorCode::Unauthenticated => (
            Step::Authentication,
            "prove who you are: --token-file, or --cert with --key; a token that has expired is issued \
             anew (mcp-broker token inspect FILE says what it says)",
        ),
        ErrorCode::Forbidden | ErrorCode::IdentityMismatch => {
            (Step::Authentication, "ask whoever keeps the broker's policy")
        }
        // It may have been refused before any handshake.
        _ => (Step::Protocol, "try again later; the broker's log says why"),
    };
    (step, info.to_string(), advice.to_owned())
}

fn files(chosen: &Chosen) -> String {
    let ca = match &chosen.ca.value {
        Place::Given(path) => path.clone(),
        Place::State(dir) => dir.join("ca.pem"),
    };
    let mut files = vec![ca.display().to_string()];
    if let Some(Token::File(path)) = chosen.token.as_ref().map(|it| &it.value) {
        files.push(path.display().to_string());
    }
    if let Some((cert, key)) = chosen.certificate.as_ref().map(|it| &it.value) {
        files.extend([cert.display().to_string(), key.display().to_string()]);
    }
    files.join(", ")
}

fn proof(chosen: &Chosen) -> String {
    let token = chosen.token.as_ref().map(|it| ("a token", &it.origin));
    let certificate = chosen.certificate.as_ref().map(|it| ("a certificate", &it.origin));
    let proofs: Vec<_> = token
        .into_iter()
        .chain(certificate)
        .map(|(what, from)| format!("with {what}, {}", origin(from)))
        .collect();
    match proofs.is_empty() {
        true => "let in as anonymous: it asks for no proof".to_owned(),
        false => proofs.join(" and "),
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Flag => "of the command line".to_owned(),
        Origin::Variable => "of the environment".to_owned(),
        Origin::Context(name) => format!("of context {name}"),
        Origin::Default => "the default".to_owned(),
    }
}

fn exit_of(error: &CallError) -> Exit {
    match error.code() {
        Some(ErrorCode::Forbidden) => Exit::Ok,
        _ => error.outcome().map_or(Exit::Unreachable, Exit::of),
    }
}

fn shown(duration: Duration) -> String {
    crate::latency::show(duration)
}
