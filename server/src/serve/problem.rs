//! Errors of the API, as RFC 9457 has them: `application/problem+json`.

use super::store::StoreError;
use crate::failure::one_line;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// One clear answer to a request that can't be done.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(super) fn system(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "system", detail)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::InUse { .. } => (StatusCode::CONFLICT, "machine-in-use"),
            StoreError::NoMachine { .. }
            | StoreError::NoInvitation
            | StoreError::NoUser { .. }
            | StoreError::NoGroup { .. }
            | StoreError::NoRule { .. } => (StatusCode::NOT_FOUND, "not-found"),
            StoreError::NameTaken { .. } | StoreError::GroupTaken { .. } | StoreError::RuleTaken { .. } => {
                (StatusCode::CONFLICT, "name-taken")
            }
            StoreError::GroupNeeded { .. } => (StatusCode::CONFLICT, "group-needed"),
            StoreError::NotYours { .. } => (StatusCode::FORBIDDEN, "other-group"),
            StoreError::NothingToConfirm { .. } => (StatusCode::CONFLICT, "nothing-to-confirm"),
            StoreError::NothingFailed { .. } => (StatusCode::CONFLICT, "nothing-failed"),
            StoreError::TooManyWebhooks { .. } => (StatusCode::CONFLICT, "too-many-webhooks"),
            StoreError::SamePerson { .. } => (StatusCode::FORBIDDEN, "same-person"),
            StoreError::LastAdmin => (StatusCode::CONFLICT, "last-admin"),
            StoreError::NotAccepted { .. } => (StatusCode::CONFLICT, "machine-not-accepted"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "database"),
        };
        Self::new(status, code, one_line(&error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let body = json!({
            "type": format!("urn:slidecast:{}", self.code),
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}
