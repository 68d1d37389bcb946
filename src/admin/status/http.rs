//! The page's HTTP: what is asked for, and what every answer says for safety.

use std::{convert::Infallible, sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{self, HOST},
    },
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use futures_util::{Stream, stream};

use super::{AdminListener, Monitor, NamedHosts, Report, metrics, page};

/// Open pages at one time; others ask now and then instead.
pub(super) const PAGES_MAX: u64 = 16;

/// After how long a page that lost its stream asks for it again.
const RETRY: Duration = Duration::from_secs(2);

/// What is said to who names another server.
const WRONG_HOST: &str = "This status page is not known under that name. Use its address, or allow the name with --admin-host.\n";

pub async fn serve(listener: AdminListener, monitor: Monitor) -> std::io::Result<()> {
    let router = router(monitor, listener.names.clone());
    axum::serve(listener, router).await
}

pub fn router(monitor: Monitor, names: NamedHosts) -> Router {
    Router::new()
        .route("/", get(async || Html(page::html())))
        .route("/favicon.svg", get(favicon))
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/metrics", get(metrics_text))
        .route("/health", get(health))
        .route("/health/live", get(live))
        .with_state(monitor)
        .layer(middleware::from_fn(add_safety))
        .layer(middleware::from_fn_with_state(names, check_host))
}

async fn check_host(State(names): State<NamedHosts>, request: Request, next: Next) -> Response {
    // HTTP/1.1 wants it once (RFC 9112, 3.2); of HTTP/1.0, which knows none, no browser speaks.
    let mut hosts = request.headers().get_all(HOST).iter();
    let is_named_well = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => names.allow(host),
        (None, None) => true,
        _ => false,
    };
    // A whole URL goes before the header (RFC 9112, 3.2.2).
    let is_allowed = is_named_well && request.uri().host().is_none_or(|host| names.allow(host));
    if is_allowed {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, WRONG_HOST).into_response()
    }
}

async fn add_safety(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in safety() {
        headers.insert(name, value);
    }
    response
}

/// Nothing from elsewhere, nothing to elsewhere, shown in no other's frame, kept nowhere.
fn safety() -> [(HeaderName, HeaderValue); 8] {
    let policy = HeaderValue::from_str(page::policy());
    [
        (
            header::CONTENT_SECURITY_POLICY,
            policy.unwrap_or(HeaderValue::from_static("default-src 'none'")),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
        ),
    ]
}

async fn favicon() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/svg+xml")], page::FAVICON)
}

async fn status(State(monitor): State<Monitor>) -> Json<Report> {
    Json(monitor.report())
}

async fn metrics_text(State(monitor): State<Monitor>) -> impl IntoResponse {
    let text = metrics::text(&monitor.report());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

async fn health(State(monitor): State<Monitor>) -> Response {
    told_health(monitor.not_ready(), "ready")
}

async fn live(State(monitor): State<Monitor>) -> Response {
    told_health(monitor.not_alive(), "alive")
}

fn told_health(trouble: Option<String>, well: &str) -> Response {
    match trouble {
        None => format!("{well}\n").into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// A report at once, and the newest one each time there is another. A reader that is slow finds the newest, not a
/// queue.
async fn events(State(monitor): State<Monitor>) -> Response {
    let Some(page) = OpenPage::new(&monitor) else {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        let why = format!("{PAGES_MAX} pages are open already; ask /api/status now and then\n");
        return (StatusCode::SERVICE_UNAVAILABLE, headers, why).into_response();
    };
    Sse::new(reports(page)).into_response()
}

fn reports(page: OpenPage) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = page.monitor.report().json();
    let news = page.monitor.0.told.subscribe();
    stream::unfold(
        (Some(first), news, page),
        async |(first, mut news, page)| {
            if let Some(first) = first {
                let event = Event::default().retry(RETRY).data(first);
                return Some((Ok(event), (None, news, page)));
            }
            news.changed().await.ok()?;
            let report = news.borrow_and_update().clone();
            Some((Ok(Event::default().data(&*report)), (None, news, page)))
        },
    )
}

/// A page that is being told, as long as it is.
struct OpenPage {
    monitor: Monitor,
}

impl OpenPage {
    /// `None` where there are enough.
    fn new(monitor: &Monitor) -> Option<OpenPage> {
        let more = |open: u64| (open < PAGES_MAX).then_some(open + 1);
        monitor.0.pages.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(OpenPage {
            monitor: monitor.clone(),
        })
    }
}

impl Drop for OpenPage {
    fn drop(&mut self) {
        self.monitor.0.pages.fetch_sub(1, Relaxed);
    }
}
