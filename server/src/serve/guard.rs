//! What every request passes before it is looked at: it comes from a page of this server or has a token, its body is here in time and
//! not too long; and every answer tells the browser how little it may do with it.

use super::access::same_origin;
use super::http::Limits;
use super::problem::Problem;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

/// The longest body, in bytes.
const MAX_BODY: usize = 1 << 20;
/// How deep JSON may be nested.
const MAX_DEPTH: usize = 32;

/// Nothing from elsewhere, no frame around a page, no script that is not a file of this server.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Takes the body of a request as a whole, and adds the headers of every answer.
pub(super) async fn guard(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let mut response = match whole(request, limits).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

async fn whole(request: Request, limits: Limits) -> Result<Request, Problem> {
    let too_long = || {
        let detail = format!("the body is longer than {MAX_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", detail)
    };
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > MAX_BODY) {
        return Err(too_long());
    }
    same_origin(request.method(), request.headers())?;
    let (parts, body) = request.into_parts();
    let bytes = tokio::time::timeout(limits.body, to_bytes(body, MAX_BODY)).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} s", limits.body.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
    })?;
    let bytes = bytes.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if source.is::<http_body_util::LengthLimitError>() => too_long(),
        _ => Problem::new(StatusCode::BAD_REQUEST, "body", "the body broke off"),
    })?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// Reads the JSON of a body.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if depth(body) > MAX_DEPTH {
        return Err(Problem::bad(format!("the JSON is nested deeper than {MAX_DEPTH}")));
    }
    serde_json::from_slice(body).map_err(|error| Problem::bad(error.to_string()))
}

/// How deep brackets are nested outside strings.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::super::http::serve;
    use super::*;
    use axum::Router;
    use axum::routing::post;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[test]
    fn brackets_in_strings_do_not_count_and_deep_json_is_refused() {
        assert_eq!(depth(br#"{"a": ["[[[", "\"[", {}], "b": []}"#), 3);
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(json::<serde_json::Value>(nested(32).as_bytes()).is_ok());
        assert!(json::<serde_json::Value>(nested(33).as_bytes()).unwrap_err().to_string().contains("deeper than 32"));
    }

    /// Sends `head`, and gives all that comes until the server hangs up.
    async fn answer_to(limits: Limits, head: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(|body: String| async move { body }));
        let router = router.layer(axum::middleware::from_fn_with_state(limits, guard));
        let server = tokio::spawn(serve(listener, router, None, limits));
        let peer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            // A server that refuses a long body may hang up before all of it is written.
            let _ = stream.write_all(head.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8(answer).unwrap()
        });
        let answer = peer.await.unwrap();
        server.abort();
        answer
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_sender_that_never_ends_its_head_or_its_body_is_hung_up_on() {
        let short = Duration::from_millis(50);
        run(async {
            let head = "POST / HTTP/1.1\r\nHost: x\r\n".to_owned();
            let head = answer_to(Limits { head: short, ..Limits::default() }, head).await;
            assert!(!head.contains("200"), "{head}");
            let post =
                "POST / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nConnection: close\r\nContent-Length: 10\r\n\r\nabc";
            let body = answer_to(Limits { body: short, ..Limits::default() }, post.to_owned()).await;
            assert!(body.starts_with("HTTP/1.1 408") && body.contains("urn:slidecast:timeout"), "{body}");
        });
    }

    #[test]
    fn a_body_without_a_length_is_refused_when_it_gets_too_long_and_answers_carry_the_policy() {
        let chunk = format!("{:x}\r\n{}\r\n", MAX_BODY + 1, "x".repeat(MAX_BODY + 1));
        let head =
            "POST / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = run(answer_to(Limits::default(), format!("{head}{chunk}0\r\n\r\n")));
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("urn:slidecast:body"), "{answer}");
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
    }
}
