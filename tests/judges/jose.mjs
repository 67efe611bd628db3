// Judges signed SETs by `jose` of npm. Input and output are those of `jose.py`.

import * as jose from "jose";

const TYP = "secevent+jwt";
const ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"];

const given = JSON.parse(await new Response(process.stdin).text());
const claims = { iss: given.issuer, aud: given.audience, ...given.payload };

async function verify(jwks, token, alg) {
  const read = await jose.jwtVerify(token, jose.createLocalJWKSet(jwks), {
    algorithms: [alg],
    issuer: given.issuer,
    audience: given.audience,
    typ: TYP,
  });
  return read.payload;
}

function sign(alg, kid, key) {
  return new jose.SignJWT(claims).setProtectedHeader({ alg, kid, typ: TYP }).sign(key);
}

function changed(token) {
  const [head, , signature] = token.split(".");
  return [head, jose.base64url.encode(JSON.stringify({ ...claims, jti: "other" })), signature].join(".");
}

async function refuses(jwks, token, alg) {
  return verify(jwks, token, alg).then(() => false, () => true);
}

function check(holds, what) {
  if (!holds) throw new Error(`jose: ${what}`);
}

// Of all members, in any order.
function same(one, other) {
  const sorted = (claims) => JSON.stringify(Object.entries(claims).sort());
  return sorted(one) === sorted(other);
}

for (const { alg, token } of given.tokens) {
  check(same(await verify(given.jwks, token, alg), claims), `${alg}: other claims`);
  check(await refuses(given.jwks, changed(token), alg), `${alg}: takes a change`);
}
const thumbprints = {};
for (const key of given.jwks.keys) thumbprints[key.kid] = await jose.calculateJwkThumbprint(key);

const keys = [];
const forgeries = [];
for (const alg of ALGORITHMS) {
  const pair = await jose.generateKeyPair(alg, { extractable: true });
  const exported = await jose.exportJWK(pair.publicKey);
  const kid = await jose.calculateJwkThumbprint(exported);
  const token = await sign(alg, kid, pair.privateKey);
  const privateJwk = { ...(await jose.exportJWK(pair.privateKey)), alg };
  const pem = await jose.exportPKCS8(pair.privateKey);
  keys.push({ alg, kid, public: { ...exported, kid }, private: privateJwk, pem, token });
  const other = await jose.generateKeyPair(alg);
  forgeries.push({ kind: "another key", alg, token: await sign(alg, kid, other.privateKey) });
  forgeries.push({ kind: "changed", alg, token: changed(token) });
  if (alg === "RS256") {
    const secret = new TextEncoder().encode(await jose.exportSPKI(pair.publicKey));
    forgeries.push({ kind: "HMAC", alg: "HS256", token: await sign("HS256", kid, secret) });
  }
}
forgeries.push({ kind: "none", alg: "none", token: new jose.UnsecuredJWT(claims).encode() });

console.log(JSON.stringify([{ library: "jose", thumbprints, keys, forgeries }]));
