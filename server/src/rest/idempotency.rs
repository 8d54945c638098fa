//! Requests with an idempotency key are done once (trap T-100).
//!
//! That a change was answered is written in the transaction that makes it, so that neither a crash nor another server
//! comes between. An answer that cannot be made again from the catalog (a refusal) is kept whole; a 5xx is not kept, since
//! the client is to ask again.

use std::future::Future;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use icefield_catalog::audit::Event;
use icefield_catalog::rights::Object;
use icefield_catalog::{Answered, Behalf, Catalog};

use super::Answer;
use super::call::Call;
use super::refusal::Refusal;
use crate::Service;

/// Does a change on a catalog that notes on whose behalf it is, or says again what came of it.
pub(crate) async fn once<'a, Done, Again>(
    service: &'a Service,
    call: &'a Call,
    status: StatusCode,
    done: impl FnOnce(Arc<dyn Catalog>) -> Done,
    again: impl Fn() -> Again,
) -> Answer
where
    Done: Future<Output = Answer>,
    Again: Future<Output = Answer>,
{
    let catalog = &service.session.tables().warehouse().catalog;
    once_on_behalf(service, call, status, |behalf| done(catalog.on_behalf(behalf)), again).await
}

/// Does a change, or says again what came of it. `status` is what it is answered with when it is done; `again` makes the
/// answer anew from what the catalog has by now.
pub(crate) async fn once_on_behalf<'a, Done, Again>(
    service: &'a Service,
    call: &'a Call,
    status: StatusCode,
    done: impl FnOnce(Behalf) -> Done,
    again: impl Fn() -> Again,
) -> Answer
where
    Done: Future<Output = Answer>,
    Again: Future<Output = Answer>,
{
    let catalog = &service.session.tables().warehouse().catalog;
    let done = async |behalf: Behalf| {
        let answer = done(behalf).await;
        if let Err(refusal) = &answer
            && refusal.status == StatusCode::FORBIDDEN
        {
            note(service, call, refusal).await?;
        }
        answer
    };
    let behalf = Behalf { actor: call.actor.clone(), answer: None, lifted: call.lifted()? };
    let Some(key) = call.key()? else { return done(behalf).await };
    let fingerprint = call.fingerprint();
    if let Some(before) = catalog.answered(&key).await? {
        return replay(before, &fingerprint, again).await;
    }
    let answer = Answered {
        key: key.clone(),
        fingerprint: fingerprint.clone(),
        status: status.as_u16(),
        body: String::new(),
    };
    let refusal = match done(Behalf { answer: Some(answer.clone()), ..behalf.clone() }).await {
        Ok(response) => return Ok(response),
        Err(refusal) => refusal,
    };
    // Another may have been quicker with the same request.
    if let Some(before) = catalog.answered(&key).await? {
        return replay(before, &fingerprint, again).await;
    }
    if refusal.status.is_client_error() {
        let (status, body) = (refusal.status.as_u16(), refusal.body().to_string());
        let answer = Some(Answered { status, body, ..answer });
        catalog.on_behalf(Behalf { answer, ..behalf }).remember_answer().await?;
        // The same request may have been done while this was being written: then that is the answer.
        if let Some(before) = catalog.answered(&key).await?.filter(|it| it.body.is_empty()) {
            return replay(before, &fingerprint, again).await;
        }
    }
    Err(refusal)
}

/// Notes what the gate had let in and was refused all the same.
async fn note(service: &Service, call: &Call, refusal: &Refusal) -> Result<(), Refusal> {
    let object = match call.parameter("table") {
        "" => String::new(),
        _ => Object::Table(call.table()?).name(),
    };
    let event = Event::denied(call.what(), object).with("why", refusal.message.as_str());
    service.notes.note(call.actor.clone(), event).await
}

async fn replay<Again: Future<Output = Answer>>(
    before: Answered,
    fingerprint: &str,
    again: impl Fn() -> Again,
) -> Answer {
    if before.fingerprint != fingerprint {
        let message = format!("the idempotency key `{}` was used for another request", before.key);
        return Err(Refusal::bad(message));
    }
    let mut response: Response = match before.body.as_str() {
        "" => again().await?,
        body => {
            let status = StatusCode::from_u16(before.status).unwrap_or(StatusCode::CONFLICT);
            let body: serde_json::Value = serde_json::from_str(body)?;
            (status, Json(body)).into_response()
        }
    };
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    Ok(response)
}
