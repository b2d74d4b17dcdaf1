//! Who may use the admin listener.
//!
//! Without a token it serves this machine alone, so a page of another site that a browser here has open
//! must not use it: neither by a name of its own that leads here (DNS rebinding; the Host header tells)
//! nor by a request that a browser sends for anybody (CSRF; acts want a content type that forms can't
//! send, and browsers say where a request comes from). With a token, who has it may.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::audit::{self, Audit};
use super::api;
use super::token::Token;

/// Says where a request comes from; browsers send it, and pages can't set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may use what.
#[derive(Debug)]
pub(super) struct Access {
    rules: Rules,
    /// Where is noted who was refused.
    audit: Audit,
}

#[derive(Debug)]
pub(in crate::server) struct Rules {
    pub(super) token: Option<Token>,
    /// Other machines reach the listener.
    pub(super) is_remote: bool,
    pub(super) metrics_public: bool,
}

type Refusal = (StatusCode, String);

impl Access {
    pub(super) fn new(rules: Rules, audit: Audit) -> Self {
        Self { rules, audit }
    }

    /// Whether whoever asks may know more than that something is wrong: an operator, or a program on this
    /// machine.
    pub(super) fn tells_why(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
        let is_here = peer.is_some_and(|ip| ip.to_canonical().is_loopback());
        self.rules.check(headers).is_ok() || is_here && check_host(headers).is_ok()
    }

    async fn or_refuse(
        &self,
        checked: Result<(), Refusal>,
        request: Request,
        next: Next,
    ) -> Response {
        let Err((status, problem)) = checked else { return next.run(request).await };
        let event = audit::Event::new(audit::Kind::Refuse, "admin").refused(problem.trim_end());
        let peer = request.extensions().get::<api::From>();
        self.audit.record(match peer {
            Some(api::From(peer)) => event.from(*peer),
            None => event,
        });
        match status {
            StatusCode::UNAUTHORIZED => {
                (status, [(WWW_AUTHENTICATE, "Bearer")], problem).into_response()
            }
            _ => (status, problem).into_response(),
        }
    }
}

impl Rules {
    /// Lets in operators.
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            if self.is_remote {
                let problem = "operators can't prove who they are: console.token_file is not set\n";
                return Err((StatusCode::FORBIDDEN, problem.to_owned()));
            }
            return check_host(headers);
        };
        let given = text(headers, &AUTHORIZATION).unwrap_or_default();
        match given.split_once(' ') {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") && token.is(given) => {
                Ok(())
            }
            Some(_) => Err((StatusCode::UNAUTHORIZED, "this is not the token\n".to_owned())),
            None => {
                let problem = "a token is needed: Authorization: Bearer TOKEN\n";
                Err((StatusCode::UNAUTHORIZED, problem.to_owned()))
            }
        }
    }
}

/// Of everything that operators look at and do.
pub(super) async fn operators(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let checked =
        access.rules.check(headers).and_then(|()| check_origin(request.method(), headers));
    access.or_refuse(checked, request, next).await
}

/// Of the metrics.
pub(super) async fn scrapers(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let checked = match access.rules.metrics_public {
        true => Ok(()),
        false => access.rules.check(request.headers()),
    };
    access.or_refuse(checked, request, next).await
}

/// Of the console's files, which tell nothing.
pub(super) async fn visitors(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let checked = match access.rules.token {
        None => access.rules.check(request.headers()),
        Some(_) => Ok(()),
    };
    access.or_refuse(checked, request, next).await
}

/// It was asked for by a name of this machine.
fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = text(headers, &HOST).unwrap_or_default();
    if is_loopback(host) {
        return Ok(());
    }
    let problem = format!(
        "this listener answers to localhost, not to {host:?}; to reach it by another name, set \
         console.token_file\n"
    );
    Err((StatusCode::FORBIDDEN, problem))
}

/// It was not a page of another site that had it sent.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let foreign =
        || (StatusCode::FORBIDDEN, "this was sent by a page of another site\n".to_owned());
    if !matches!(text(headers, &SEC_FETCH_SITE), None | Some("same-origin" | "none")) {
        return Err(foreign());
    }
    if method != Method::POST {
        return Ok(());
    }
    if let Some(origin) = text(headers, &ORIGIN) {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if host.is_none() || host != text(headers, &HOST) {
            return Err(foreign());
        }
    }
    let media = text(headers, &CONTENT_TYPE).and_then(|it| it.split(';').next());
    if media.map(str::trim_ascii) != Some("application/json") {
        let problem = "a body is needed with Content-Type: application/json\n".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
    }
    Ok(())
}

/// The text of a header that is there once; what is not text is as good as nothing.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.to_str().unwrap_or_default()),
        (Some(_), Some(_)) => Some(""),
        (None, _) => None,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    let is_address = || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    name.eq_ignore_ascii_case("localhost") || is_address()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn status(checked: Result<(), Refusal>) -> u16 {
        checked.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        let rules = Rules { token: None, is_remote: false, metrics_public: false };
        for host in
            ["localhost", "LocalHost:9447", "127.0.0.1:1", "127.9.9.9", "[::1]:9447", "[::1]"]
        {
            assert_eq!(status(rules.check(&headers(&[(HOST, host)]))), 200, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9447",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "[::2]:1",
            "localhost:9447:evil",
            "localhost@evil.example",
        ] {
            assert_eq!(status(rules.check(&headers(&[(HOST, host)]))), 403, "{host}");
        }
        assert_eq!(status(rules.check(&headers(&[]))), 403);
        let rules = Rules { is_remote: true, ..rules };
        assert_eq!(status(rules.check(&headers(&[(HOST, "localhost")]))), 403);
    }

    #[test]
    fn why_something_is_wrong_is_told_here_and_to_operators() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        let token = Token::from_file(file.path()).unwrap();
        let rules = Rules { token: Some(token), is_remote: true, metrics_public: false };
        let access = Access::new(rules, Audit::start(None).unwrap().0);
        let tells = |of: &[_], peer: &str| access.tells_why(&headers(of), peer.parse().ok());
        let (localhost, elsewhere) = ((HOST, "localhost:9447"), (HOST, "broker.example"));
        let bearer = |token| (AUTHORIZATION, token);
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(tells(std::slice::from_ref(&localhost), here), "{here}");
            // As a page of another site would ask, by a name that leads here.
            assert!(!tells(std::slice::from_ref(&elsewhere), here), "{here}");
        }
        for there in ["10.0.0.1", "::ffff:10.0.0.1", ""] {
            assert!(!tells(std::slice::from_ref(&localhost), there), "{there}");
            let wrong = bearer("Bearer fedcba9876543210");
            assert!(!tells(&[localhost.clone(), wrong], there), "{there}");
            let right = bearer("Bearer 0123456789abcdef");
            assert!(tells(&[elsewhere.clone(), right], there), "{there}");
        }
    }

    #[test]
    fn an_act_is_sent_by_no_other_site() {
        let json = (CONTENT_TYPE, "application/json; charset=utf-8");
        let (post, get) = (Method::POST, Method::GET);
        let of = |method: &Method, of: &[_]| status(check_origin(method, &headers(of)));
        let host = (HOST, "localhost:9447");
        assert_eq!(of(&get, &[]), 200);
        assert_eq!(of(&get, &[(SEC_FETCH_SITE, "same-origin")]), 200);
        assert_eq!(of(&get, &[(SEC_FETCH_SITE, "none")]), 200);
        for site in ["cross-site", "same-site", ""] {
            assert_eq!(of(&get, &[(SEC_FETCH_SITE, site)]), 403, "{site}");
        }
        assert_eq!(of(&post, std::slice::from_ref(&json)), 200);
        assert_eq!(
            of(&post, &[json.clone(), host.clone(), (ORIGIN, "http://localhost:9447")]),
            200
        );
        for origin in ["http://evil.example", "null", "http://localhost:1", "localhost:9447"] {
            assert_eq!(of(&post, &[json.clone(), host.clone(), (ORIGIN, origin)]), 403, "{origin}");
        }
        for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert_eq!(of(&post, &[(CONTENT_TYPE, form)]), 415, "{form}");
        }
        assert_eq!(of(&post, &[]), 415);
    }
}
