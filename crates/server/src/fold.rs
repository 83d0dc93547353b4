//! The whole answer: what its stream adds up to.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::shape::{Answer, Envelope, Extras, Shape};

/// Waits for the last piece and answers with their sum.
pub(crate) async fn respond<S: Shape>(mut answer: Answer<S>) -> Result<Response, ApiError> {
    let mut choices: BTreeMap<u32, S::Choice> = BTreeMap::new();
    let (mut usage, mut extras) = (None, Extras::default());
    while let Some(piece) = answer.next().await {
        let piece = piece?;
        usage = piece.usage.or(usage);
        extras.merge(piece.extras);
        if let Some(delta) = piece.choice {
            add::<S>(&mut choices, delta);
        }
    }
    let head = &answer.head;
    let body = Envelope {
        id: &head.id,
        object: S::ANSWER_OBJECT,
        created: head.created,
        model: &head.model,
        choices: &answer.shape.pick(choices.into_values().collect()),
        usage: Some(usage.as_ref()),
        system_fingerprint: &head.fingerprint,
        service_tier: S::SERVICE_TIER,
        extras: &extras,
    };
    Ok(Json(body).into_response())
}

fn add<S: Shape>(choices: &mut BTreeMap<u32, S::Choice>, delta: S::Delta) {
    match choices.get_mut(&S::index(&delta)) {
        Some(choice) => choice.extend([delta]),
        None => {
            choices.insert(S::index(&delta), delta.into());
        }
    }
}
