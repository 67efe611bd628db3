"""Judges signed SETs by three libraries of PyPI: joserfc, PyJWT and jwcrypto.

Reads from standard input:
  issuer, audience  of all SETs
  payload           the claims of each SET, without issuer and audience
  jwks              Setgate's public keys
  tokens            SETs signed by Setgate: [{alg, kid, token}]

Each library verifies these tokens, refuses each with a changed payload, and computes thumbprints. Then it makes a key for
each algorithm, signs SETs and makes forgeries. Writes for each library:
  library
  thumbprints  of Setgate's keys, by kid (empty if the library has none)
  keys         its own keys: [{alg, kid, public, private, pem, token}]
  forgeries    [{kind, alg, token}]
"""

import base64
import json
import sys
import warnings

import jwt as pyjwt
from cryptography.hazmat.primitives import serialization
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws
from jwcrypto import jwk as jwcrypto_jwk
from jwcrypto import jws as jwcrypto_jws
from jwt.algorithms import get_default_algorithms

# joserfc warns of `EdDSA`, the older name, and of `none` and weak secrets, which are meant here.
warnings.simplefilter("ignore")

TYP = "secevent+jwt"
SHAPES = {
    "RS256": {"kty": "RSA", "size": 2048},
    "PS256": {"kty": "RSA", "size": 2048},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}


def header(alg, kid):
    return {"alg": alg, "kid": kid, "typ": TYP}


def pkcs8(private):
    """PEM in PKCS#8, as the command lines of most products write it."""
    key = jwcrypto_jwk.JWK(**private)
    return key.export_to_pem(private_key=True, password=None).decode()


class Joserfc:
    name = "joserfc"

    def thumbprint(self, public):
        return joserfc_jwk.import_key(public).thumbprint()

    def verify(self, jwks, token, alg):
        keys = joserfc_jwk.KeySet.import_key_set(jwks)
        read = joserfc_jws.deserialize_compact(token, keys, algorithms=[alg])
        assert read.headers()["typ"] == TYP
        return json.loads(read.payload)

    def generate(self, alg):
        shape = SHAPES[alg]
        key = joserfc_jwk.generate_key(shape["kty"], shape.get("size") or shape["crv"])
        return key.as_dict(private=True), key.thumbprint()

    def public(self, alg, private):
        return joserfc_jwk.import_key(private).as_dict(private=False)

    def sign(self, alg, kid, private, claims):
        key = joserfc_jwk.import_key(private)
        return joserfc_jws.serialize_compact(header(alg, kid), json.dumps(claims), key, algorithms=[alg])

    def unsigned(self, claims):
        return joserfc_jws.serialize_compact(header("none", "x"), json.dumps(claims), None, algorithms=["none"])

    def mac(self, kid, public, claims):
        # It refuses PEM and DER of a public key as a secret, but not the modulus.
        secret = joserfc_jwk.OctKey.import_key(public["n"])
        return joserfc_jws.serialize_compact(header("HS256", kid), json.dumps(claims), secret, algorithms=["HS256"])


class PyJwt:
    name = "PyJWT"

    def thumbprint(self, public):
        return None

    def verify(self, jwks, token, alg):
        kid = pyjwt.get_unverified_header(token)["kid"]
        key = pyjwt.PyJWKSet.from_dict(jwks)[kid]
        # As a receiver is told to: issuer, audience and type are given, and `exp` is not required.
        read = pyjwt.decode_complete(token, key, algorithms=[alg], audience=GIVEN["audience"], issuer=GIVEN["issuer"])
        assert read["header"]["typ"] == TYP
        return read["payload"]

    def generate(self, alg):
        # It makes no keys: its users make them with `cryptography`, as jwcrypto does.
        return JwCrypto().generate(alg)

    def load(self, private):
        return serialization.load_pem_private_key(pkcs8(private).encode(), password=None)

    def public(self, alg, private):
        return get_default_algorithms()[alg].to_jwk(self.load(private).public_key(), as_dict=True)

    def sign(self, alg, kid, private, claims):
        key = self.load(private)
        return pyjwt.encode(claims, key, algorithm=alg, headers={"kid": kid, "typ": TYP})

    def unsigned(self, claims):
        return pyjwt.encode(claims, None, algorithm="none", headers={"kid": "x", "typ": TYP})

    def mac(self, kid, public, claims):
        # It refuses PEM and JWK of a public key as a secret, but not the modulus.
        return pyjwt.encode(claims, public["n"], algorithm="HS256", headers={"kid": kid, "typ": TYP})


class JwCrypto:
    name = "jwcrypto"

    def thumbprint(self, public):
        return jwcrypto_jwk.JWK(**public).thumbprint()

    def verify(self, jwks, token, alg):
        read = jwcrypto_jws.JWS()
        read.allowed_algs = [alg]
        read.deserialize(token)
        keys = jwcrypto_jwk.JWKSet.from_json(json.dumps(jwks))
        read.verify(keys.get_key(read.jose_header["kid"]))
        assert read.jose_header["typ"] == TYP
        return json.loads(read.payload)

    def generate(self, alg):
        key = jwcrypto_jwk.JWK.generate(**SHAPES[alg])
        return json.loads(key.export_private()), key.thumbprint()

    def public(self, alg, private):
        return jwcrypto_jwk.JWK(**private).export_public(as_dict=True)

    def sign(self, alg, kid, private, claims):
        token = jwcrypto_jws.JWS(json.dumps(claims).encode())
        token.allowed_algs = [alg]
        token.add_signature(jwcrypto_jwk.JWK(**private), alg, json.dumps(header(alg, kid)))
        return token.serialize(compact=True)

    def unsigned(self, claims):
        # It makes none, so this one is by hand.
        parts = [json.dumps(header("none", "x")), json.dumps(claims)]
        return ".".join([base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts] + [""])

    def mac(self, kid, public, claims):
        pem = jwcrypto_jwk.JWK(**public).export_to_pem()
        secret = base64.urlsafe_b64encode(pem).decode().rstrip("=")
        return self.sign("HS256", kid, {"kty": "oct", "k": secret}, claims)


def refuses(library, jwks, token, alg):
    try:
        library.verify(jwks, token, alg)
    except Exception:
        return True
    return False


def changed(token, claims):
    head, _, signature = token.split(".")
    payload = base64.urlsafe_b64encode(json.dumps({**claims, "jti": "other"}).encode()).decode().rstrip("=")
    return ".".join([head, payload, signature])


def judge(library, claims):
    for given in GIVEN["tokens"]:
        alg, token = given["alg"], given["token"]
        assert library.verify(GIVEN["jwks"], token, alg) == claims, f"{library.name}, {alg}: other claims"
        assert refuses(library, GIVEN["jwks"], changed(token, claims), alg), f"{library.name}, {alg}: takes a change"
    thumbprints = {key["kid"]: library.thumbprint(key) for key in GIVEN["jwks"]["keys"]}
    keys, forgeries = [], []
    for alg in SHAPES:
        private, kid = library.generate(alg)
        # The JWK of a key that is for one algorithm.
        private = {**private, "alg": alg}
        token = library.sign(alg, kid, private, claims)
        public = {**library.public(alg, private), "kid": kid}
        keys.append({"alg": alg, "kid": kid, "public": public, "private": private, "pem": pkcs8(private), "token": token})
        other, _ = library.generate(alg)
        forgeries.append({"kind": "another key", "alg": alg, "token": library.sign(alg, kid, other, claims)})
        forgeries.append({"kind": "changed", "alg": alg, "token": changed(token, claims)})
    rsa = {name: keys[0]["public"][name] for name in ["kty", "n", "e"]}
    forgeries.append({"kind": "none", "alg": "none", "token": library.unsigned(claims)})
    forgeries.append({"kind": "HMAC", "alg": "HS256", "token": library.mac(keys[0]["kid"], rsa, claims)})
    return {"library": library.name, "thumbprints": thumbprints, "keys": keys, "forgeries": forgeries}


GIVEN = json.load(sys.stdin)
CLAIMS = {"iss": GIVEN["issuer"], "aud": GIVEN["audience"], **GIVEN["payload"]}
json.dump([judge(library, CLAIMS) for library in [Joserfc(), PyJwt(), JwCrypto()]], sys.stdout)
