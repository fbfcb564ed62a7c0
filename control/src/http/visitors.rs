//! The connections to control, of which there are as many as is good for it.
//!
//! A connection rests while control waits for its client: for a request, for the rest of one, or
//! until an answer was taken. It may rest for a while. Where there are too many, the one that has
//! rested longest goes; whoever asks at once and reads the answer never does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use landfall_pool::stderr;
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower_service::Service;

use super::BODY_BYTES_MAX;
use crate::answers::Problem;

/// Connections at a time, where descriptors bound them no further.
const MOST: usize = 1024;

/// Longest rest. Clients keep a connection for 15 s before they use it again.
const REST: Duration = Duration::from_secs(30);

/// How often it is said that nobody can be let in.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// How many connections there may be, and for how long one may rest.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at a time.
    pub most: usize,
    /// Longest rest.
    pub rest: Duration,
}

impl Bounds {
    /// Those of this process: half of its descriptors at most are for whoever comes.
    pub fn here() -> io::Result<Self> {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let half = usize::try_from(soft / 2).unwrap_or(MOST);
        Ok(Self { most: half.clamp(1, MOST), rest: REST })
    }
}

/// Those that rest, the longest first.
#[derive(Default)]
struct Resting(Mutex<BTreeMap<(Instant, u64), Arc<Notify>>>);

impl Resting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Instant, u64), Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection. When it is gone it rests no more.
struct Visitor {
    resting: Arc<Resting>,
    number: u64,
    /// Told when it has to make room.
    go: Arc<Notify>,
    since: Mutex<Option<Instant>>,
}

impl Visitor {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Control waits for it from now on.
    fn rests(&self) {
        self.is_answered();
        let now = Instant::now();
        *self.since() = Some(now);
        self.resting.lock().insert((now, self.number), Arc::clone(&self.go));
    }

    /// It waits for control.
    fn is_answered(&self) {
        if let Some(since) = self.since().take() {
            self.resting.lock().remove(&(since, self.number));
        }
    }

    /// Waits until it has rested for too long.
    async fn overstays(&self, most: Duration) {
        loop {
            let since = *self.since();
            match since {
                Some(since) => sleep_until(since + most).await,
                None => sleep(most).await,
            }
            if since.is_some() && *self.since() == since {
                return;
            }
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.is_answered();
    }
}

/// All connections.
pub(super) struct Visitors {
    bounds: Bounds,
    resting: Arc<Resting>,
    tasks: JoinSet<()>,
    next: u64,
    stop: watch::Sender<bool>,
    said: Option<Instant>,
}

impl Visitors {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (stop, _) = watch::channel(false);
        let (resting, tasks) = (Arc::default(), JoinSet::new());
        Self { bounds, resting, tasks, next: 0, stop, said: None }
    }

    /// Serves one more. Where there are too many, another one goes, or this one if control works
    /// for all others.
    pub(super) fn admit(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        router: Router,
    ) {
        // Those that have ended take nobody's place.
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= self.bounds.most && !self.make_room() {
            return;
        }
        self.next += 1;
        let visitor = Visitor {
            resting: Arc::clone(&self.resting),
            number: self.next,
            go: Arc::default(),
            since: Mutex::default(),
        };
        let stop = self.stop.subscribe();
        self.tasks.spawn(receive(stream, router, visitor, self.bounds.rest, stop));
    }

    /// Whether somebody goes.
    fn make_room(&self) -> bool {
        let longest = self.resting.lock().pop_first();
        longest.map(|(_, go)| go.notify_one()).is_some()
    }

    /// Nobody could be let in.
    pub(super) fn cannot_admit(&mut self, error: &io::Error) {
        self.make_room();
        let now = Instant::now();
        if self.said.is_none_or(|said| now - said >= SAY_AGAIN) {
            self.said = Some(now);
            let count = self.tasks.len();
            stderr::note(format_args!(
                "landfall-control: nobody more can be let in, with {count} connections: {error}; \
                 the one that has rested longest goes"
            ));
        }
    }

    /// Waits until a connection has ended.
    pub(super) async fn gone(&mut self) {
        if self.tasks.join_next().await.is_none() {
            pending().await
        }
    }

    /// Ends all: who is being answered within `most`, if that is long enough.
    pub(super) async fn leave(mut self, most: Duration) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(most, all).await;
    }
}

/// Answers one connection until it ends. What is wrong with it is its client's to know.
async fn receive(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    visitor: Visitor,
    rest: Duration,
    mut stop: watch::Receiver<bool>,
) {
    visitor.rests();
    let answer = |request| {
        let (mut router, visitor) = (router.clone(), &visitor);
        async move {
            let answer = match whole(request).await {
                Ok(request) => {
                    visitor.is_answered();
                    router.call(request).await.into_response()
                }
                Err(problem) => problem.into_response(),
            };
            visitor.rests();
            Ok::<_, Infallible>(answer)
        }
    };
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::pin!(connection);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = visitor.go.notified() => return,
            () = visitor.overstays(rest) => return,
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The request with its body: until that has come, control waits for the client.
async fn whole(request: hyper::Request<Incoming>) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    match to_bytes(Body::new(body), BODY_BYTES_MAX).await {
        Ok(body) => Ok(Request::from_parts(head, Body::from(body))),
        Err(error) => Err(Problem::bad(format!(
            "the body cannot be read, or is longer than {BODY_BYTES_MAX} bytes: {error}"
        ))),
    }
}
