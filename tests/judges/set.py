"""Verifies one SET with PyJWT and prints its claims. Reads {"jwks", "token", "audience", "issuer"} from standard input."""

import json
import sys

import jwt

given = json.load(sys.stdin)
header = jwt.get_unverified_header(given["token"])
if set(header) != {"alg", "kid", "typ"} or header["typ"] != "secevent+jwt":
    sys.exit(f"unexpected header: {header}")
keys = [key for key in given["jwks"]["keys"] if key["kid"] == header["kid"]]
if len(keys) != 1:
    sys.exit(f"{len(keys)} keys have the kid {header['kid']}")
key = jwt.PyJWK(keys[0])
claims = jwt.decode(
    given["token"],
    key,
    algorithms=[key.algorithm_name],
    audience=given["audience"],
    issuer=given["issuer"],
    options={"require": ["iss", "aud", "iat", "jti"]},
)
if "exp" in claims or "sub" in claims or len(claims["events"]) != 1:
    sys.exit(f"not a SET of SSF 1.0: {claims}")
json.dump(claims, sys.stdout)
