"""The tutorial's flow by a client that openapi-python-client made of /openapi.json: tenant, key, source, filter, subscription,
event, deliveries. Ends with 0 if each step came to what the document says."""

import io
import json
import sys
import time

from setgate_client import AuthenticatedClient
from setgate_client.api.deliveries import list_deliveries, show_delivery
from setgate_client.api.filters import list_filters, upload_filter
from setgate_client.api.ingest import ingest_event
from setgate_client.api.keys import create_key
from setgate_client.api.operator import create_tenant
from setgate_client.api.sources import put_source, show_source
from setgate_client.api.subscriptions import create_subscription
from setgate_client.models import (
    BindingInput,
    DeliveryState,
    EndpointInput,
    JsonObject,
    KeyOnce,
    NewKey,
    NewTenant,
    Problem,
    Scope,
    SourceForm,
    SourceInput,
    SubscriptionInput,
    SubscriptionOnce,
)
from setgate_client.types import File

DEADLINE_S = 120


def expect(response, status, kind=None):
    """The parsed answer, if it has the status and is of the type."""
    if response.status_code != status:
        sys.exit(f"expected {status}: {response.status_code} {response.content!r}")
    if kind is not None and not isinstance(response.parsed, kind):
        sys.exit(f"expected {kind}: {response.parsed!r}")
    return response.parsed


def main(base, operator_key, receiver, wasm_path):
    operator = AuthenticatedClient(base_url=base, token=operator_key, timeout=60)
    expect(create_tenant.sync_detailed(client=operator, body=NewTenant(id="pythonic")), 201)
    twice = expect(create_tenant.sync_detailed(client=operator, body=NewTenant(id="pythonic")), 409, Problem)
    assert twice.code == "conflict", twice
    scopes = [Scope.INGEST, Scope.READ, Scope.WRITE]
    key = expect(create_key.sync_detailed("pythonic", client=operator, body=NewKey(scopes=scopes)), 201, KeyOnce)
    client = AuthenticatedClient(base_url=base, token=key.key, timeout=60)

    source = SourceInput.from_dict({"form": "set", "proofs": [{"kind": "key"}]})
    assert source.form == SourceForm.SET
    expect(put_source.sync_detailed("pythonic", "idp", client=client, body=source), 201)
    shown = expect(show_source.sync_detailed("pythonic", "idp", client=client), 200)
    assert shown.ingest_path == "/ingest/pythonic/idp", shown
    with open(wasm_path, "rb") as wasm:
        component = File(payload=io.BytesIO(wasm.read()))
    made = expect(upload_filter.sync_detailed("pythonic", "gate", client=client, body=component), 201)
    assert [version.digest for version in made.versions] == [made.active], made
    subscription = SubscriptionInput(
        endpoint=EndpointInput(url=receiver), chain=[BindingInput(filter_="gate")]
    )
    subscribed = expect(
        create_subscription.sync_detailed("pythonic", client=client, body=subscription), 201, SubscriptionOnce
    )
    assert subscribed.signing_secret.startswith("whsec_")

    event = JsonObject.from_dict({
        "iss": "https://idp.example.com/",
        "jti": "from-python",
        "iat": 1767225600,
        "sub_id": {"format": "email", "email": "jane@example.com"},
        "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {}},
    })
    accepted = expect(ingest_event.sync_detailed("pythonic", "idp", client=client, body=event), 202)
    assert accepted.duplicate is False
    deadline = time.monotonic() + DEADLINE_S
    while True:
        page = expect(list_deliveries.sync_detailed("pythonic", client=client, event=accepted.event, limit=10), 200)
        if page.items and page.items[0].state == DeliveryState.DELIVERED:
            break
        assert time.monotonic() < deadline, page
        time.sleep(0.2)
    delivery = expect(show_delivery.sync_detailed("pythonic", page.items[0].id, client=client), 200)
    assert delivery.jti == "from-python" and delivery.subscription == subscribed.id, delivery
    assert [run.filter_ for run in delivery.runs] == ["gate"], delivery
    filters = expect(list_filters.sync_detailed("pythonic", client=client), 200)
    assert [one.name for one in filters.items] == ["gate"]
    print(json.dumps({"delivered": delivery.id}))


if __name__ == "__main__":
    main(*sys.argv[1:])
