//! Answers that a client has already: each list and object of the API carries a tag of its content (`ETag`), and a client that sends the
//! tag back in `If-None-Match` gets 304 and no body while it is still the same.

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Puts the tag on an answer to a GET whose body is whole; a stream has none.
pub(super) async fn tagged(request: Request, next: Next) -> Response {
    let (get, headers) = (request.method() == Method::GET, request.headers().clone());
    let response = next.run(request).await;
    let whole = response.body().size_hint().exact().is_some();
    if !get || response.status() != StatusCode::OK || !whole {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It is in memory already, and can't fail.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    // Kept by the client, and asked for again each time.
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if !has(&headers, &tag) {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts.status = StatusCode::NOT_MODIFIED;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Body::empty())
}

/// Whether the client says that it has what this tag stands for.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A proxy that has packed the body has marked the tag as weak; for this comparison that makes no difference (RFC 9110, 13.1.2).
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|had| had == "*" || had.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_among_others_and_may_be_weak() {
        let headers =
            |value: &'static str| HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
        assert!(has(&headers("\"a\", W/\"b\""), "\"b\"") && has(&headers("*"), "\"b\""));
        assert!(!has(&headers("\"a\""), "\"b\"") && !has(&HeaderMap::new(), "\"b\""));
    }
}
