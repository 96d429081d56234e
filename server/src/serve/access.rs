//! Whether a request may do what it asks for: who sends it, by token or by session, and from which page.

use super::api::Api;
use super::problem::Problem;
use super::role::{Role, hash_of};
use super::store::Who;
use axum::http::{HeaderMap, Method, StatusCode, header};

/// The cookie that a session has.
pub(super) const COOKIE: &str = "slidecast";

impl Api {
    /// Who sends this, by token or by session.
    pub(super) async fn who(&self, headers: &HeaderMap) -> Result<Option<Who>, Problem> {
        if let Some(token) = headers.get(header::AUTHORIZATION) {
            let token = token.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
            let Some(hash) = token.map(|token| hash_of(token.trim())) else { return Ok(None) };
            return Ok(self.database.call(move |store| store.of_token(&hash)).await?);
        }
        let Some(session) = session_of(headers) else { return Ok(None) };
        Ok(self.database.call(move |store| store.of_session(&session)).await?)
    }

    /// Refuses a request of somebody unknown, or of too low a role.
    pub(super) async fn authorize(&self, headers: &HeaderMap, least: Role) -> Result<Who, Problem> {
        let who = self.who(headers).await?.ok_or_else(|| {
            let detail = "a valid token is needed: Authorization: Bearer TOKEN (slidecast token new makes one)";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        })?;
        if who.role < least {
            let detail = format!("this needs the role {least}, and {} has the role {}", who.name, who.role);
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        Ok(who)
    }
}

/// The hash of the session that the cookie names.
pub(super) fn session_of(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| hash_of(value))
}

/// Refuses what a page of another site has a browser send: a browser adds the cookie by itself, a token nobody adds for others.
pub(super) fn same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => site == "same-origin",
        (None, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority == host),
        _ => false,
    };
    match same {
        true => Ok(()),
        false => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "other-origin",
            "this request does not come from a page of this server; programs use a token: Authorization: Bearer TOKEN",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_write_comes_from_a_page_of_this_server_or_with_a_token() {
        let may = |pairs: &[_]| same_origin(&Method::POST, &headers(pairs)).is_ok();
        assert!(may(&[("sec-fetch-site", "same-origin")]));
        assert!(may(&[("origin", "http://127.0.0.1:7540"), ("host", "127.0.0.1:7540")]));
        assert!(may(&[("authorization", "Bearer x")]));
        assert!(!may(&[]));
        assert!(!may(&[("sec-fetch-site", "same-site"), ("origin", "http://a"), ("host", "a")]));
        assert!(!may(&[("origin", "http://evil.example"), ("host", "127.0.0.1:7540")]));
        assert!(!may(&[("origin", "null"), ("host", "127.0.0.1:7540")]));
        assert!(same_origin(&Method::GET, &headers(&[("sec-fetch-site", "cross-site")])).is_ok());
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        assert_eq!(session_of(&headers(&[("cookie", "a=b; slidecast=xyz;c=d")])), Some(hash_of("xyz")));
        assert_eq!(session_of(&headers(&[("cookie", "slidecasts=xyz")])), None);
    }
}
