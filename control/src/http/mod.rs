//! The HTTP API of docs/PROTOCOL.md section 10.

mod gate;
mod metrics;
mod serve;
mod visitors;

use std::net::{IpAddr, SocketAddr};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete as delete_route, get, post};
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch::Receiver;

use crate::answers::{Problem, SCHEMA_VERSION, TokenSpec, TopicSpec};
use crate::messages::Ask;
use crate::start::Asker;

pub use gate::Hosts;
pub use serve::{Listeners, ServeError, serve, serve_within};
pub use visitors::Bounds;

/// Longest body that is read: many times the longest topic.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The host that a request comes from, if it comes over TCP.
#[derive(Clone, Copy, Debug)]
struct Peer(Option<IpAddr>);

/// What every handler answers.
type Answer = Result<Response, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_of(status, &json!({"error": {"code": self.code, "message": self.message}}))
    }
}

fn json_of(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn ok(value: &impl Serialize) -> Answer {
    Ok(json_of(StatusCode::OK, value))
}

/// What a control knows that stands by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandingBy {
    /// Why it does.
    pub why: String,
    /// Where the one that leads is asked, if that is known.
    pub leader: Option<SocketAddr>,
}

/// What a control says that stands by: without an answer whoever asks would wait until it leads.
/// It says what it knows by then: another one may lead meanwhile.
pub fn standing_by(knows: Receiver<StandingBy>) -> Router {
    Router::new().fallback(move || {
        let StandingBy { why, leader } = knows.borrow().clone();
        let message = format!("this control stands by: {why}");
        let leader = leader.map(|leader| format!("http://{leader}"));
        let error = json!({"code": "standing_by", "message": message, "leader": leader});
        let body = json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": error}));
        // Once it leads, nobody is to be told so on a connection from before.
        async { ([(header::CONNECTION, "close")], body) }
    })
}

/// The answer of a keeper that is no more.
fn stopping<T>(answer: Option<T>) -> Result<T, Problem> {
    answer.ok_or_else(|| Problem::full("stopping", "control is stopping"))
}

/// All routes.
pub fn router(asker: Asker) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/cluster", get(cluster))
        .route("/v1/topics", get(topics).post(create))
        .route("/v1/topics/{name}", get(topic).delete(delete))
        .route("/v1/topics/{name}/tokens", post(token))
        .route("/v1/brokers/{number}", delete_route(forget))
        .route("/v1/counters", get(counters))
        .route("/v1/errors", get(errors))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(asker)
}

async fn health(State(asker): State<Asker>) -> Answer {
    ok(&stopping(asker.ask(Ask::Health).await)?)
}

async fn cluster(State(asker): State<Asker>) -> Answer {
    ok(&stopping(asker.ask(Ask::Cluster).await)?)
}

async fn topics(State(asker): State<Asker>) -> Answer {
    let topics = stopping(asker.ask(Ask::Topics).await)?;
    ok(&json!({"schema_version": SCHEMA_VERSION, "topics": *topics}))
}

/// A part of a path: a name that is no text is a wrong one like others.
type Part = Result<Path<String>, PathRejection>;

fn part(part: Part) -> Result<String, Problem> {
    part.map(|Path(part)| part).map_err(|error| Problem::bad(error.body_text()))
}

async fn topic(State(asker): State<Asker>, name: Part) -> Answer {
    let name = part(name)?;
    ok(&stopping(asker.ask(|reply| Ask::Topic(name, reply)).await)??)
}

async fn create(State(asker): State<Asker>, body: Result<Bytes, BytesRejection>) -> Answer {
    let body = body.map_err(|error| Problem::bad(error.body_text()))?;
    let spec: TopicSpec = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad(format!("the body of POST /v1/topics is not a topic: {error}"))
    })?;
    let topic = stopping(asker.ask(|reply| Ask::Create(spec, reply)).await)??;
    Ok(json_of(StatusCode::CREATED, &topic))
}

async fn delete(State(asker): State<Asker>, name: Part) -> Answer {
    let name = part(name)?;
    let deleted = name.clone();
    stopping(asker.ask(|reply| Ask::Delete(name, reply)).await)??;
    ok(&json!({"schema_version": SCHEMA_VERSION, "deleted": deleted}))
}

async fn forget(State(asker): State<Asker>, number: Part) -> Answer {
    let number = part(number)?;
    let number: u8 =
        number.parse().map_err(|_| Problem::bad(format!("{number:?} is no number of a broker")))?;
    stopping(asker.ask(|reply| Ask::Forget(number, reply)).await)??;
    ok(&json!({"schema_version": SCHEMA_VERSION, "forgotten": number}))
}

async fn token(
    State(asker): State<Asker>,
    Extension(Peer(host)): Extension<Peer>,
    name: Part,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let name = part(name)?;
    let body = body.map_err(|error| Problem::bad(error.body_text()))?;
    let spec: TokenSpec = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad(format!("the body of POST {name}/tokens is not {{\"broker\":N}}: {error}"))
    })?;
    let token = stopping(asker.ask(|reply| Ask::Token(name, spec, host, reply)).await)??;
    Ok(json_of(StatusCode::CREATED, &token))
}

async fn counters(State(asker): State<Asker>) -> Answer {
    let processes = metrics::counters(asker.pool());
    ok(&json!({"schema_version": SCHEMA_VERSION, "processes": processes}))
}

async fn errors(State(asker): State<Asker>) -> Answer {
    let errors = metrics::errors(asker.pool());
    ok(&json!({"schema_version": SCHEMA_VERSION, "errors": errors}))
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::missing(format!(
        "there is no {}; there are /v1/health, /v1/cluster, /v1/topics, /v1/topics/NAME, \
         /v1/topics/NAME/tokens, /v1/brokers/NUMBER, /v1/counters and /v1/errors",
        uri.path()
    ))
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not take {method}", uri.path());
    Problem { status: 405, code: "method_not_allowed", message }
}
