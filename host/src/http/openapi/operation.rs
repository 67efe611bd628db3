//! One operation: its route and its documentation.

use axum::handler::Handler as Route;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::JsonSchema;
use serde_json::Value;

use super::draft::{Arguments, OperationDraft};
use super::schemas::Schemas;
use crate::http::state::SharedState;

/// A line of the table of operations.
pub(in crate::http) struct Operation {
    pub(in crate::http) method: Method,
    pub(in crate::http) path: String,
    pub(in crate::http) id: &'static str,
    pub(in crate::http) summary: &'static str,
    pub(in crate::http) description: Option<&'static str>,
    pub(in crate::http) route: MethodRouter<SharedState>,
    /// Collects the descriptions of the route's arguments.
    pub(in crate::http) arguments: fn(&mut OperationDraft<'_>),
    /// Media types of a body that is not JSON, and its description.
    pub(in crate::http) body: Option<(&'static [&'static str], &'static str)>,
    /// Examples of such a body by media type.
    pub(in crate::http) examples: Vec<(&'static str, Value)>,
    pub(in crate::http) answers: Vec<Answer>,
    pub(in crate::http) refuses: Vec<u16>,
    /// Whether unknown query parameters are ignored.
    pub(in crate::http) ignores_parameters: bool,
}

/// A media type, and a function that creates its schema.
type Content = (&'static str, fn(&mut Schemas) -> Value);

/// A success.
pub(in crate::http) struct Answer {
    pub(in crate::http) status: u16,
    pub(in crate::http) description: &'static str,
    /// Media type and schema of the body.
    pub(in crate::http) content: Option<Content>,
    /// Whether it carries an `ETag`.
    pub(in crate::http) tagged: bool,
}

pub(in crate::http) fn get<R, T>(path: &str, id: &'static str, summary: &'static str, route: R) -> Operation
where
    R: Route<T, SharedState>,
    T: Arguments + 'static,
{
    Operation::new((Method::GET, MethodFilter::GET), path, id, summary, route)
}

pub(in crate::http) fn post<R, T>(path: &str, id: &'static str, summary: &'static str, route: R) -> Operation
where
    R: Route<T, SharedState>,
    T: Arguments + 'static,
{
    Operation::new((Method::POST, MethodFilter::POST), path, id, summary, route)
}

pub(in crate::http) fn put<R, T>(path: &str, id: &'static str, summary: &'static str, route: R) -> Operation
where
    R: Route<T, SharedState>,
    T: Arguments + 'static,
{
    Operation::new((Method::PUT, MethodFilter::PUT), path, id, summary, route)
}

pub(in crate::http) fn patch<R, T>(path: &str, id: &'static str, summary: &'static str, route: R) -> Operation
where
    R: Route<T, SharedState>,
    T: Arguments + 'static,
{
    Operation::new((Method::PATCH, MethodFilter::PATCH), path, id, summary, route)
}

pub(in crate::http) fn delete<R, T>(path: &str, id: &'static str, summary: &'static str, route: R) -> Operation
where
    R: Route<T, SharedState>,
    T: Arguments + 'static,
{
    Operation::new((Method::DELETE, MethodFilter::DELETE), path, id, summary, route)
}

impl Operation {
    fn new<R, T>(
        (method, filter): (Method, MethodFilter),
        path: &str,
        id: &'static str,
        summary: &'static str,
        route: R,
    ) -> Self
    where
        R: Route<T, SharedState>,
        T: Arguments + 'static,
    {
        Self {
            method,
            path: path.to_owned(),
            id,
            summary,
            description: None,
            route: on(filter, route),
            arguments: T::describe,
            body: None,
            examples: Vec::new(),
            answers: Vec::new(),
            refuses: Vec::new(),
            ignores_parameters: false,
        }
    }

    /// Prefixes the path.
    pub(in crate::http) fn with_prefix(mut self, path: &str) -> Self {
        self.path.insert_str(0, path);
        self
    }

    /// Adds a longer description in CommonMark.
    pub(in crate::http) fn description(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// Declares a body that is not JSON, in one of these media types.
    pub(in crate::http) fn accepts(mut self, media_types: &'static [&'static str], what: &'static str) -> Self {
        self.body = Some((media_types, what));
        self
    }

    /// Adds an example of such a body. An example of a JSON media type is JSON, any other one is text.
    pub(in crate::http) fn example(mut self, media_type: &'static str, example: Value) -> Self {
        self.examples.push((media_type, example));
        self
    }

    /// Declares an answer with a `T` as JSON.
    pub(in crate::http) fn responds<T: JsonSchema>(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, Some(("application/json", Schemas::given::<T>)))
    }

    /// Declares an answer with a `T` as JSON of another media type.
    pub(in crate::http) fn responds_in<T: JsonSchema>(
        self,
        status: u16,
        media_type: &'static str,
        description: &'static str,
    ) -> Self {
        self.answer(status, description, Some((media_type, Schemas::given::<T>)))
    }

    /// Declares an answer without a body.
    pub(in crate::http) fn responds_empty(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, None)
    }

    /// Declares an answer with text.
    pub(in crate::http) fn responds_text(
        self,
        status: u16,
        media_type: &'static str,
        description: &'static str,
    ) -> Self {
        self.answer(status, description, Some((media_type, |_| serde_json::json!({"type": "string"}))))
    }

    /// Declares an answer with bytes.
    pub(in crate::http) fn responds_bytes(
        self,
        status: u16,
        media_type: &'static str,
        description: &'static str,
    ) -> Self {
        self.answer(status, description, Some((media_type, |_| super::document::bytes())))
    }

    /// Declares that the answers so far carry an `ETag`, and that a GET is answered 304 if `if-none-match` contains it.
    pub(in crate::http) fn tagged(mut self) -> Self {
        self.answers.iter_mut().for_each(|answer| answer.tagged = true);
        self
    }

    /// Declares the problem statuses of the route itself, in addition to those of its arguments.
    pub(in crate::http) fn errors<const N: usize>(mut self, statuses: [u16; N]) -> Self {
        self.refuses.extend(statuses);
        self
    }

    /// Ignores unknown query parameters: third-party clients of this operation add some.
    pub(in crate::http) fn ignores_parameters(mut self) -> Self {
        self.ignores_parameters = true;
        self
    }

    fn answer(mut self, status: u16, description: &'static str, content: Option<Content>) -> Self {
        self.answers.push(Answer { status, description, content, tagged: false });
        self
    }
}
