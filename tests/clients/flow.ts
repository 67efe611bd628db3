// The tutorial's flow by a client over the types that openapi-typescript made of /openapi.json: tenant, key, source, filter,
// subscription, event, deliveries. Ends with 0 if each step came to what the document says.

import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const DEADLINE_MS = 120_000;
const [base, operatorKey, receiver, wasmPath] = process.argv.slice(2) as [string, string, string, string];

const clientOf = (key: string) =>
  createClient<paths>({ baseUrl: base, headers: { authorization: `Bearer ${key}` } });

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

/** The answer, if it was a success of that status. */
function expect<T>(answer: { data?: T; error?: unknown; response: Response }, status: number): T {
  check(answer.response.status === status && answer.data !== undefined, [answer.response.status, answer.error]);
  return answer.data;
}

const operator = clientOf(operatorKey);
const tenant = "typed";
expect(await operator.POST("/api/v1/tenants", { body: { id: tenant } }), 201);
const twice = await operator.POST("/api/v1/tenants", { body: { id: tenant } });
check(twice.error?.code === "conflict", twice.error);
const scopes: components["schemas"]["Scope"][] = ["ingest", "read", "write"];
const made = await operator.POST("/api/v1/tenants/{tenant}/keys", { params: { path: { tenant } }, body: { scopes } });
const client = clientOf(expect(made, 201).key);

const source = await client.PUT("/api/v1/tenants/{tenant}/sources/{source}", {
  params: { path: { tenant, source: "idp" } },
  body: { form: "set", proofs: [{ kind: "key" }] },
});
check(expect(source, 201).ingest_path === `/ingest/${tenant}/idp`, source.data);

const filter = await client.PUT("/api/v1/tenants/{tenant}/filters/{filter}", {
  params: { path: { tenant, filter: "gate" } },
  // The type of a file's content is text; what is sent are its bytes.
  body: readFileSync(wasmPath) as unknown as string,
  bodySerializer: (body) => body as unknown as BodyInit,
  headers: { "content-type": "application/wasm" },
});
check(expect(filter, 201).versions.length === 1, filter.data);

const subscription = await client.POST("/api/v1/tenants/{tenant}/subscriptions", {
  params: { path: { tenant } },
  body: { endpoint: { url: receiver }, chain: [{ filter: "gate" }] },
});
const subscribed = expect(subscription, 201);
check(subscribed.signing_secret?.startsWith("whsec_") === true, subscribed);

const accepted = expect(
  await client.POST("/ingest/{tenant}/{source}", {
    params: { path: { tenant, source: "idp" } },
    body: {
      iss: "https://idp.example.com/",
      jti: "from-typescript",
      iat: 1767225600,
      sub_id: { format: "email", email: "jane@example.com" },
      events: { "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} },
    },
  }),
  202,
);
check(!accepted.duplicate, accepted);

const deadline = Date.now() + DEADLINE_MS;
for (;;) {
  const list = await client.GET("/api/v1/tenants/{tenant}/deliveries", {
    params: { path: { tenant }, query: { event: accepted.event, limit: 10 } },
  });
  const first = expect(list, 200).items[0];
  const state: components["schemas"]["DeliveryState"] | undefined = first?.state;
  if (first && state === "delivered") {
    check(first.jti === "from-typescript" && first.subscription === subscribed.id, first);
    const shown = await client.GET("/api/v1/tenants/{tenant}/deliveries/{delivery}", {
      params: { path: { tenant, delivery: first.id } },
    });
    const runs = expect(shown, 200).runs ?? [];
    check(runs.length === 1 && runs[0]?.filter === "gate", runs);
    console.log(JSON.stringify({ delivered: first.id }));
    break;
  }
  check(Date.now() < deadline, list.data);
  await new Promise((resolve) => setTimeout(resolve, 200));
}
