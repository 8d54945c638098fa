//! Traces of requests, for a collector of OpenTelemetry's.
//!
//! Configured as everywhere, by the environment: with `OTEL_EXPORTER_OTLP_ENDPOINT` there is a span for each request, within the
//! trace of a client that says it has one (`traceparent`), and spans below it for what takes long. Without, there are none.

use std::future::Future;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response};
use icefield_query::{Error, Result};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    FutureExt as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// What names a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// What the spans are said to be of.
const NAME: &str = "icefield";

/// Where spans go.
#[derive(Debug, Default)]
pub(crate) struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

impl Traces {
    /// As the environment has it.
    ///
    /// # Errors
    ///
    /// A collector that is named in a way that makes no sense.
    pub(crate) fn from_env() -> Result<Self> {
        if collector()?.is_none() {
            return Ok(Self(None));
        }
        let wrong = |_| {
            Error::invalid("the collector of OpenTelemetry's cannot be used as it is configured")
        };
        let exporter = SpanExporter::builder().with_http().with_http_client(Client::new()?).build();
        let name = said("OTEL_SERVICE_NAME").unwrap_or_else(|| NAME.to_owned());
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(name).build())
            .with_batch_exporter(exporter.map_err(wrong)?)
            .build();
        let tracer = provider.tracer(NAME);
        Ok(Self(Some((provider, tracer))))
    }

    /// The span of a request, to be worked in; without a collector, none.
    pub(crate) fn begin(
        &self,
        method: &str,
        route: &str,
        id: &str,
        headers: &HeaderMap,
    ) -> Context {
        let Some((_, tracer)) = &self.0 else { return Context::new() };
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("http.route", route.to_owned()),
                KeyValue::new("icefield.request_id", id.to_owned()),
            ])
            .start_with_context(tracer, &parent);
        parent.with_span(span)
    }

    /// Ends the span of a request.
    pub(crate) fn end(&self, request: &Context, status: u16) {
        if self.0.is_none() {
            return;
        }
        let span = request.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Does a part of a request in a span of its own.
    pub(crate) async fn part<Done>(
        &self,
        name: &'static str,
        work: impl Future<Output = Done>,
    ) -> Done {
        let Some((_, tracer)) = &self.0 else { return work.await };
        let now = Context::current();
        let within = now.with_span(tracer.start_with_context(name, &now));
        let done = work.with_context(within.clone()).await;
        within.span().end();
        done
    }

    /// Sends what was not sent yet.
    pub(crate) async fn finish(&self) {
        if let Some((provider, _)) = self.0.clone() {
            // What a collector does not take within seconds is let go.
            let _ = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        }
    }
}

fn said(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|it| !it.is_empty())
}

/// The collector that the environment names.
///
/// # Errors
///
/// One that is named in a way that makes no sense.
pub(crate) fn collector() -> Result<Option<url::Url>> {
    if said("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let Some((variable, url)) = ENDPOINTS.iter().find_map(|it| Some((it, said(it)?))) else {
        return Ok(None);
    };
    let is_http = |it: &url::Url| matches!(it.scheme(), "http" | "https") && it.has_host();
    match url::Url::parse(&url).ok().filter(is_http) {
        Some(url) => Ok(Some(url)),
        // Not with its text, since there may be a secret in it.
        None => Err(Error::invalid(format!("{variable} names no collector")).with_hint(
            "write it with its scheme: http://HOST:4318; the protocol is http/protobuf",
        )),
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|it| it.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Sends spans from the exporter's thread by the server's own connections.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl Client {
    fn new() -> Result<Self> {
        let http = reqwest::Client::builder().build();
        let http = http.map_err(|error| Error::invalid(error.without_url().to_string()))?;
        Ok(Self { http, runtime: tokio::runtime::Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        });
        let (status, headers, body) = sent.await??;
        let mut answer = Response::builder().status(status).body(body)?;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}
