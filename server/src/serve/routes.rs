//! The table of the API: every path with its method, the role that it needs, what it takes and what it answers. The router and the
//! OpenAPI document are both made of it, so neither can have a path that the other lacks.

use super::api::Api;
use super::role::Role;
use axum::Router;
use axum::routing::MethodRouter;
use std::sync::Arc;

/// A method of HTTP that the API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// As OpenAPI writes it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Something in the query or the head of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// `query` or `header`.
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    /// The type in JSON Schema: `string` or `integer`.
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
}

/// A parameter of the query.
pub(super) const fn query(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { place: "query", name, kind, about }
}

/// A header of the request.
pub(super) const fn header(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { place: "header", name, kind, about }
}

/// What an answer has in its body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// JSON of a schema of `super::schema`.
    Json(&'static str),
    /// Text of this kind.
    Text(&'static str),
}

/// A path and what it does.
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    /// The least role; none is open to everybody.
    pub(super) role: Option<Role>,
    pub(super) about: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// The schema of the request's body.
    pub(super) takes: Option<&'static str>,
    /// Answers to a request that is well.
    pub(super) gives: &'static [(u16, Body)],
    pub(super) handler: MethodRouter<Arc<Api>>,
}

impl Route {
    /// A path with neither parameters nor a body in the request, that answers 200.
    pub(super) fn new(
        verb: Verb,
        path: &'static str,
        role: Role,
        about: &'static str,
        handler: MethodRouter<Arc<Api>>,
    ) -> Self {
        Self {
            verb,
            path,
            role: Some(role),
            about,
            parameters: &[],
            takes: None,
            gives: &[(200, Body::Empty)],
            handler,
        }
    }

    /// The one that everybody may call.
    pub(super) fn open(mut self) -> Self {
        self.role = None;
        self
    }

    pub(super) fn parameters(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }

    pub(super) fn takes(mut self, schema: &'static str) -> Self {
        self.takes = Some(schema);
        self
    }

    pub(super) fn gives(mut self, gives: &'static [(u16, Body)]) -> Self {
        self.gives = gives;
        self
    }
}

/// Answers each path of the table with its handler.
pub(super) fn router(routes: Vec<Route>) -> Router<Arc<Api>> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler))
}
