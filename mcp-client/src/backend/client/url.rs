//! Where a server is.

use std::fmt;

use http::Uri;
use http::uri::{Authority, Scheme};

use crate::backend::InvalidBackend;

/// The URL of a server: `http` or `https`, a host, and no user or password, since URLs are shown.
#[derive(Clone)]
pub(in crate::backend) struct Url(Uri);

impl Url {
    pub(in crate::backend) fn parse(text: &str) -> Result<Self, InvalidBackend> {
        let wrong = |problem: String| InvalidBackend::new("the URL", problem);
        let uri: Uri = text.parse().map_err(|error| {
            wrong(format!("can't be read ({error}): write http://HOST:PORT/PATH"))
        })?;
        let is_known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        if !is_known || uri.host().is_none_or(str::is_empty) {
            return Err(wrong("does not begin with http://HOST or https://HOST".to_owned()));
        }
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            let problem = "has a user or password in it, where logs would show them: leave it out";
            return Err(wrong(problem.to_owned()));
        }
        Ok(Self(uri))
    }

    /// Below this one, its query kept.
    #[cfg(any(feature = "kserve", feature = "openai"))]
    pub(in crate::backend) fn join(&self, path: &str) -> Result<Self, InvalidBackend> {
        let base = self.0.path().trim_end_matches('/');
        let query = self.0.query().map(|query| format!("?{query}")).unwrap_or_default();
        let wrong = |error: &dyn fmt::Display| InvalidBackend::new("the URL", error);
        let path = http::uri::PathAndQuery::try_from(format!("{base}{path}{query}"));
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(path.map_err(|error| wrong(&error))?);
        Uri::from_parts(parts).map(Self).map_err(|error| wrong(&error))
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

/// Without the query, which may hold a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map(Authority::as_str).unwrap_or_default();
        write!(f, "{}://{authority}{}", self.0.scheme_str().unwrap_or_default(), self.0.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(feature = "kserve", feature = "openai"))]
    #[test]
    fn what_is_below_keeps_the_path_and_the_query() {
        for (base, joined) in [
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat"),
            ("https://host/", "https://host/chat"),
            ("http://host/a/?key=b", "http://host/a/chat?key=b"),
        ] {
            let url = Url::parse(base).unwrap().join("/chat").unwrap();
            assert_eq!(url.uri().to_string(), joined);
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = Url::parse("http://host:1/a?key=secret").unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://host:1/a http://host:1/a");
    }

    #[test]
    fn what_is_no_url_of_a_server_says_why() {
        for (text, why) in [
            ("localhost:8000", "begin with http://"),
            ("/v1", "begin with http://"),
            ("ftp://host/", "begin with http://"),
            ("http://", "write http://HOST"),
            ("http://a b/", "write http://HOST"),
            ("http://user:secret@host/", "password"),
        ] {
            let error = Url::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
