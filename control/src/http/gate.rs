//! Which requests are those of programs, and not of a web page in somebody's browser.
//!
//! A page of any site may have its reader's browser ask control, which that browser reaches and the
//! site does not. A browser names the page in `Origin` (RFC 6454, section 7) wherever it could
//! change something, sends bodies that are not of a form only with that site's leave (the Fetch
//! standard), and can be led here by a name that the site owns, which `Host` then shows.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use crate::answers::Problem;

/// The names by which control may be called besides `localhost` and every IP address: nobody else
/// can give it those.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// This machine's own name and these.
    pub fn here(more: &[String]) -> Self {
        // Where it cannot be read, the machine has no name to be called by.
        let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let own = Some(own.trim().to_owned()).filter(|own| !own.is_empty());
        Self(own.into_iter().chain(more.iter().cloned()).collect())
    }

    fn has(&self, name: &str) -> bool {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        is("localhost") || self.0.iter().any(|known| is(known))
    }
}

/// A router that answers programs only. `hosts`: what it may be called; `None` for those who come
/// by a path, where a name leads nowhere.
pub(super) fn programs_only(router: Router, hosts: Option<Hosts>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let hosts = hosts.clone();
        async move { pass(request, next, hosts).await }
    }))
}

async fn pass(request: Request, next: Next, hosts: Option<Hosts>) -> Response {
    match judge(request.method(), request.uri(), request.headers(), hosts.as_ref()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn judge(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    hosts: Option<&Hosts>,
) -> Result<(), Problem> {
    if let Some(hosts) = hosts {
        check_host(uri, headers, hosts)?;
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = shown(origin);
        return Err(refused(
            403,
            "foreign_origin",
            format!("the request comes from a web page of {origin}; control answers programs only"),
        ));
    }
    // What takes no body is asked with the method alone, which no form can send.
    if method == Method::POST && !is_json(headers) {
        let found = headers.get(header::CONTENT_TYPE).map_or("none".to_owned(), shown);
        return Err(refused(
            415,
            "not_json",
            format!("the content type is {found}; say content-type: application/json"),
        ));
    }
    Ok(())
}

fn check_host(uri: &Uri, headers: &HeaderMap, hosts: &Hosts) -> Result<(), Problem> {
    let wrong = |message| refused(421, "unknown_host", message);
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (uri.authority(), named.next(), named.next()) {
        (Some(authority), ..) => authority.as_str().to_owned(),
        (None, Some(host), None) => shown(host),
        // No browser leaves it out.
        (None, None, _) => return Ok(()),
        (None, Some(_), Some(_)) => {
            return Err(wrong("the request names more than one host".to_owned()));
        }
    };
    if is_address(&host) || hosts.has(without_port(&host)) {
        return Ok(());
    }
    let name = without_port(&host);
    Err(wrong(format!(
        "control is not known as {name:?}, and a web page may have given it that name: ask by its \
         IP address, or start it with --host {name}"
    )))
}

fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok()
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(found) = headers.get(header::CONTENT_TYPE) else { return false };
    let found = shown(found);
    let kind = found.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn refused(status: u16, code: &'static str, message: String) -> Problem {
    Problem { status, code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        method: Method,
        pairs: &[(header::HeaderName, &'static str)],
    ) -> Result<(), (u16, String)> {
        let pairs = pairs.iter().cloned();
        let headers = pairs.map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
        let hosts = Hosts(Arc::new(["rack-1".to_owned()]));
        judge(&method, &Uri::from_static("/v1/topics"), &headers, Some(&hosts))
            .map_err(|problem| (problem.status, problem.message))
    }

    #[test]
    fn it_answers_to_addresses_and_to_its_own_names() {
        for host in ["127.0.0.1", "127.0.0.1:7400", "[::1]:7400", "[::1]", "localhost:1", "RACK-1"]
        {
            assert_eq!(judged(Method::GET, &[(header::HOST, host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:7400", "rack-1.evil.example", "127.0.0.1.x", ""]
        {
            let (status, why) = judged(Method::GET, &[(header::HOST, host)]).unwrap_err();
            assert_eq!(status, 421, "{host}: {why}");
        }
        assert_eq!(judged(Method::GET, &[]), Ok(()));
        let two = [(header::HOST, "localhost"), (header::HOST, "evil.example")];
        let headers = two.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, HeaderValue::from_static(value));
            headers
        });
        let hosts = Hosts::default();
        let found = judge(&Method::GET, &Uri::from_static("/"), &headers, Some(&hosts));
        assert_eq!(found.unwrap_err().status, 421);
        assert!(judge(&Method::GET, &Uri::from_static("/"), &headers, None).is_ok());
        let whole = Uri::from_static("http://evil.example/v1/topics");
        assert!(judge(&Method::GET, &whole, &HeaderMap::new(), Some(&hosts)).is_err());
    }

    #[test]
    fn it_answers_no_web_page() {
        let host = (header::HOST, "127.0.0.1");
        for origin in ["http://evil.example", "null", "http://127.0.0.1"] {
            let found = judged(Method::DELETE, &[host.clone(), (header::ORIGIN, origin)]);
            assert_eq!(found.unwrap_err().0, 403, "{origin}");
        }
        assert_eq!(judged(Method::DELETE, &[host]), Ok(()));
    }

    #[test]
    fn what_is_posted_says_that_it_is_json() {
        let host = (header::HOST, "127.0.0.1");
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            let found = judged(Method::POST, &[host.clone(), (header::CONTENT_TYPE, kind)]);
            assert_eq!(found, Ok(()), "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            let found = judged(Method::POST, &[host.clone(), (header::CONTENT_TYPE, kind)]);
            assert_eq!(found.unwrap_err().0, 415, "{kind}");
        }
        assert_eq!(judged(Method::POST, &[host]).unwrap_err().0, 415);
    }
}
