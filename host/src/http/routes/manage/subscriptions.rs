use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use setgate_domain::id::SubscriptionRef;

use super::{Tagged, located, made, path_of};
use crate::control::subscriptions::{
    PollTokens, RotateInput, RotatePollTokenInput, SigningKeys, SubscriptionInput, SubscriptionOnce, SubscriptionView,
    Subscriptions, TestEvents, TestSent, Verifications,
};
use crate::control::{Page, TEXT_CHARS_MAX};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named, OfSubscription};
use crate::http::openapi::{Operation, delete, get, post, put};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/subscriptions", "listSubscriptions", "Lists subscriptions, oldest first.", list)
            .responds::<Page<SubscriptionView>>(200, "A page of subscriptions."),
        post("/subscriptions", "createSubscription", "Creates a subscription.", create)
            .description("It receives events that are accepted from now on. A generated signing secret is shown only once. The private half of \
                 an Ed25519 key is never shown.")
            .responds::<SubscriptionOnce>(201, "The subscription is created.")
            .tagged()
            .errors([409, 422]),
        get("/subscriptions/{subscription}", "showSubscription", "Shows one subscription without its secrets.", show)
            .responds::<SubscriptionOnce>(200, "The subscription.")
            .tagged(),
        put("/subscriptions/{subscription}", "replaceSubscription", "Creates or replaces a subscription.", replace)
            .description("If the path has a name, the subscription is created if it does not exist. If the path has an id, it must exist. The \
                 document of showSubscription can be sent back unchanged: secrets that are absent or `***` keep their values, and \
                 `null` removes one. Signing keys are retained unless the scheme or the secret changes. Pending deliveries keep \
                 the chain that they were created with.")
            .responds::<SubscriptionOnce>(201, "The subscription is created.")
            .responds::<SubscriptionOnce>(200, "The subscription is replaced.")
            .tagged()
            .errors([409, 422]),
        post("/subscriptions/{subscription}/pause", "pauseSubscription", "Pauses a subscription. Its deliveries stay queued.", pause)
            .responds::<SubscriptionOnce>(200, "The subscription is paused.")
            .tagged()
            .errors([412, 422]),
        post("/subscriptions/{subscription}/resume", "resumeSubscription", "Resumes a paused subscription.", resume)
            .responds::<SubscriptionOnce>(200, "The subscription is active.")
            .tagged()
            .errors([412]),
        post("/subscriptions/{subscription}/rotate-key", "rotateKey", "Creates a new signing key.", rotate)
            .description("With the scheme `standard`, the new key signs immediately and the previous keys also sign during the overlap. The \
                 other schemes carry a single signature, so the new key is staged and the current key signs until activateKey \
                 or the end of the overlap.")
            .responds::<SubscriptionOnce>(200, "The new key is created.")
            .tagged()
            .errors([409, 412, 422]),
        post("/subscriptions/{subscription}/activate-key", "activateKey", "Activates the staged signing key.", activate)
            .description("The previous key stops signing.")
            .responds::<SubscriptionOnce>(200, "The staged key is active.")
            .tagged()
            .errors([409, 412]),
        post("/subscriptions/{subscription}/cancel-key", "cancelKey", "Removes the staged signing key.", cancel)
            .description("The current key continues to sign.")
            .responds::<SubscriptionOnce>(200, "The staged key is removed.")
            .tagged()
            .errors([409, 412]),
        post("/subscriptions/{subscription}/rotate-poll-token", "rotatePollToken", "Creates a new token for a receiver that polls.", rotate_poll_token)
            .description("It is shown only once. The existing tokens are accepted until the end of the overlap.")
            .responds::<SubscriptionOnce>(200, "The new token is created.")
            .tagged()
            .errors([409, 412, 422]),
        post("/subscriptions/{subscription}/test", "testSubscription", "Sends a test event to this subscription only.", test)
            .description("The event runs through the chain and is signed like any other. It appears as a delivery in the history.")
            .responds::<TestSent>(202, "The test event is queued.")
            .errors([409, 429]),
        post("/subscriptions/{subscription}/verify", "verifyEndpoint", "Sends a verification challenge to the endpoint.", verify)
            .responds::<SubscriptionOnce>(200, "The endpoint is verified.")
            .tagged()
            .errors([409, 412, 422, 429]),
        delete("/subscriptions/{subscription}", "removeSubscription", "Removes a subscription.", remove)
            .description("Pending deliveries become dead letters with the reason.")
            .responds_empty(204, "Removed.")
            .errors([412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(subscriptions): State<Subscriptions>,
) -> Result<Json<Page<SubscriptionView>>, Problem> {
    Ok(paging.answer(subscriptions.list(&tenant, &paging.query)?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    RequestActor(actor): RequestActor,
    State(subscriptions): State<Subscriptions>,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    let created = subscriptions.create(&actor, &tenant, input).await?;
    let path = path_of(&tenant, format_args!("/subscriptions/{}", created.view.id));
    Ok(made(&path, created))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    State(subscriptions): State<Subscriptions>,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(subscriptions.show(&tenant, id)?))
}

pub(in crate::http) async fn replace(
    Tenant(tenant): Tenant,
    Named(named): Named<SubscriptionRef>,
    RequestActor(actor): RequestActor,
    State(subscriptions): State<Subscriptions>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    let (is_new, subscription) = match named {
        SubscriptionRef::Id(id) => (false, subscriptions.replace(&actor, &tenant, id, input, expected).await?),
        SubscriptionRef::Name(name) => subscriptions.put(&actor, &tenant, &name, input, expected).await?,
    };
    let path = path_of(&tenant, format_args!("/subscriptions/{}", subscription.view.id));
    Ok(super::put(is_new, &path, subscription))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PauseInput {
    /// A reason, shown with the subscription.
    #[serde(default = "by_request")]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    reason: String,
}

fn by_request() -> String {
    "paused by request".into()
}

pub(in crate::http) async fn pause(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(subscriptions): State<Subscriptions>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<PauseInput>,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(subscriptions.pause(&actor, &tenant, id, Some(input.reason), expected).await?))
}

pub(in crate::http) async fn resume(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(subscriptions): State<Subscriptions>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(subscriptions.pause(&actor, &tenant, id, None, expected).await?))
}

pub(in crate::http) async fn rotate(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(signing_keys): State<SigningKeys>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RotateInput>,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(signing_keys.rotate(&actor, &tenant, id, input, expected).await?))
}

pub(in crate::http) async fn rotate_poll_token(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(poll_tokens): State<PollTokens>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RotatePollTokenInput>,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(poll_tokens.rotate(&actor, &tenant, id, input, expected).await?))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(signing_keys): State<SigningKeys>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(signing_keys.activate(&actor, &tenant, id, expected).await?))
}

pub(in crate::http) async fn cancel(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(signing_keys): State<SigningKeys>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(signing_keys.cancel(&actor, &tenant, id, expected).await?))
}

pub(in crate::http) async fn test(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(test_events): State<TestEvents>,
) -> Result<Response, Problem> {
    let sent = test_events.send(&actor, &tenant, id).await?;
    let path = path_of(&tenant, format_args!("/deliveries/{}", sent.delivery));
    Ok((StatusCode::ACCEPTED, located(&path), Json(sent)).into_response())
}

pub(in crate::http) async fn verify(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(verifications): State<Verifications>,
) -> Result<Tagged<SubscriptionOnce>, Problem> {
    Ok(Tagged(verifications.verify(&actor, &tenant, id).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    RequestActor(actor): RequestActor,
    State(subscriptions): State<Subscriptions>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    subscriptions.remove(&actor, &tenant, id, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
