use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use setgate_domain::id::SubscriptionRef;

use super::{located, made, path_of, tagged};
use crate::control::subscriptions::{RotateInput, SubscriptionInput, SubscriptionOnce, SubscriptionView, TestSent};
use crate::control::{Page, TEXT_CHARS_MAX};
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named, OfSubscription};
use crate::http::operations::{Operation, delete, get, post, put};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/subscriptions", "listSubscriptions", "All subscriptions, oldest first.", list)
            .gives::<Page<SubscriptionView>>(200, "The subscriptions."),
        post("/subscriptions", "createSubscription", "Makes a subscription.", create)
            .says("It gets what is accepted from now on. A signing secret made here is shown this once; the private half of an \
                 ed25519 key never is.")
            .gives::<SubscriptionOnce>(201, "It is made.")
            .tagged()
            .refuses([409, 422]),
        get("/subscriptions/{subscription}", "showSubscription", "One subscription, without its secrets.", show)
            .gives::<SubscriptionOnce>(200, "The subscription.")
            .tagged(),
        put("/subscriptions/{subscription}", "replaceSubscription", "Replaces a subscription whole, or makes one.", replace)
            .says("By a name that its tenant chooses it is made if there is none; by an id it has to be there. The document of \
                 showSubscription can be sent back as it is: secrets that are absent or `***` keep their values, and `null` \
                 removes one. Signing keys stay unless the scheme or the secret changes. Pending deliveries keep the chain that \
                 they were made with.")
            .gives::<SubscriptionOnce>(201, "It is made.")
            .gives::<SubscriptionOnce>(200, "It is replaced.")
            .tagged()
            .refuses([409, 422]),
        post("/subscriptions/{subscription}/pause", "pauseSubscription", "Stops sending; what is pending waits.", pause)
            .gives::<SubscriptionOnce>(200, "Nothing is sent.")
            .tagged()
            .refuses([412, 422]),
        post("/subscriptions/{subscription}/resume", "resumeSubscription", "Starts sending again.", resume)
            .gives::<SubscriptionOnce>(200, "It is sent.")
            .tagged()
            .refuses([412]),
        post("/subscriptions/{subscription}/rotate-key", "rotateKey", "Makes a new signing key.", rotate)
            .says("With the scheme `standard` it signs at once, and the keys so far beside it for the overlap. The other schemes \
                 carry a single signature: there the new key is staged, and the current one goes on signing until activateKey \
                 or the end of the overlap.")
            .gives::<SubscriptionOnce>(200, "The new key is made.")
            .tagged()
            .refuses([409, 412, 422]),
        post("/subscriptions/{subscription}/activate-key", "activateKey", "Has the staged signing key sign.", activate)
            .says("The one before does not sign any more.")
            .gives::<SubscriptionOnce>(200, "The new key signs.")
            .tagged()
            .refuses([409, 412]),
        post("/subscriptions/{subscription}/cancel-key", "cancelKey", "Removes the staged signing key.", cancel)
            .says("The current one goes on signing.")
            .gives::<SubscriptionOnce>(200, "The current key stays.")
            .tagged()
            .refuses([409, 412]),
        post("/subscriptions/{subscription}/test", "testSubscription", "Sends a test event to this subscription alone.", test)
            .says("Through its chain and signed, like any event; a delivery of the history.")
            .gives::<TestSent>(202, "It is on its way.")
            .refuses([409, 429]),
        post("/subscriptions/{subscription}/verify", "verifyEndpoint", "Sends the endpoint a challenge to answer.", verify)
            .gives::<SubscriptionOnce>(200, "The endpoint is verified.")
            .tagged()
            .refuses([409, 412, 422, 429]),
        delete("/subscriptions/{subscription}", "removeSubscription", "Removes a subscription.", remove)
            .says("What was pending becomes dead letters, with the reason.")
            .gives_nothing(204, "It is gone.")
            .refuses([412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(site): State<Site>,
) -> Result<Json<Page<SubscriptionView>>, Problem> {
    Ok(paging.answer(site.control.list_subscriptions(&tenant, paging.query.clone())?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    Acting(control): Acting,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    let created = control.create_subscription(&tenant, input).await?;
    let path = path_of(&tenant, format_args!("/subscriptions/{}", created.view.id));
    Ok(made(&path, created.version, created))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, site.control.show_subscription(&tenant, id)?))
}

pub(in crate::http) async fn replace(
    Tenant(tenant): Tenant,
    Named(named): Named<SubscriptionRef>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    let (is_new, subscription) = match named {
        SubscriptionRef::Id(id) => (false, control.replace_subscription(&tenant, id, input, expected).await?),
        SubscriptionRef::Name(name) => control.put_subscription(&tenant, &name, input, expected).await?,
    };
    let path = path_of(&tenant, format_args!("/subscriptions/{}", subscription.view.id));
    Ok(super::put(is_new, &path, subscription.version, subscription))
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
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<PauseInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.pause_subscription(&tenant, id, Some(input.reason), expected).await?))
}

pub(in crate::http) async fn resume(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.pause_subscription(&tenant, id, None, expected).await?))
}

pub(in crate::http) async fn rotate(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RotateInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.rotate_signing_key(&tenant, id, input, expected).await?))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.activate_signing_key(&tenant, id, expected).await?))
}

pub(in crate::http) async fn cancel(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.cancel_signing_key(&tenant, id, expected).await?))
}

pub(in crate::http) async fn test(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
) -> Result<Response, Problem> {
    let sent = control.test_subscription(&tenant, id).await?;
    let path = path_of(&tenant, format_args!("/deliveries/{}", sent.delivery));
    Ok((StatusCode::ACCEPTED, located(&path), Json(sent)).into_response())
}

pub(in crate::http) async fn verify(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.verify_endpoint(&tenant, id).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_subscription(&tenant, id, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(status: StatusCode, subscription: SubscriptionOnce) -> Response {
    tagged(status, subscription.version, subscription)
}
