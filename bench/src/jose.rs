//! Signed SETs: tokens signed and verified by `setgate-jose`, in turns with the bare signature by the same `ring`.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use setgate_jose::{Algorithm, JwkSet, Jws, PublicJwk, SigningKey};

use crate::Mode;
use crate::cores::{on_one, repeat};
use crate::events::Template;
use crate::report::{Bound, Sheet, median};

const SECTION: &str = "jose";
/// Bytes of the claims: a login with its user.
const CLAIMS_BYTES: usize = 900;
/// Media type of a SET (RFC 8417 section 2.3).
const TYP: &str = "secevent+jwt";

/// Number and duration of rounds.
struct Turns {
    rounds: usize,
    lasts: Duration,
}

/// The CPU microseconds of each round.
#[derive(Default)]
struct Times {
    sign: Vec<f64>,
    bare_sign: Vec<f64>,
    verify: Vec<f64>,
    bare_verify: Vec<f64>,
}

/// Measures the section.
pub(crate) fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let turns = match mode {
        Mode::Quick => Turns { rounds: 1, lasts: Duration::from_millis(5) },
        _ => Turns { rounds: mode.rounds(), lasts: Duration::from_millis(80) },
    };
    // Blocks: runs on a separate thread that is pinned to a core.
    tokio::task::block_in_place(|| on_one(|| on_this_core(sheet, &turns)))
}

fn on_this_core(sheet: &mut Sheet, turns: &Turns) -> anyhow::Result<()> {
    let claims = Template::of(CLAIMS_BYTES).event(1);
    let keys = Algorithm::ALL.into_iter().map(SigningKey::generate).collect::<Result<Vec<_>, _>>()?;
    // A token's key is looked up among several, as in an issuer's JWKS.
    let public = keys.iter().map(|key| PublicJwk::parse(key.public_jwk())).collect::<Result<Vec<_>, _>>()?;
    let jwks = JwkSet::from_keys(public);
    let (mut sign, mut verify) = (Vec::new(), Vec::new());
    for key in &keys {
        let times = Times::of(key, &jwks, &claims, turns)?;
        times.note(sheet, key.algorithm());
        sign.push(median(&ratios(&times.sign, &times.bare_sign)));
        verify.push(median(&ratios(&times.verify, &times.bare_verify)));
    }
    // Of all algorithms the one with the cheapest signature, beside which the rest of a token is most visible.
    let most = |ratios: Vec<f64>| ratios.into_iter().fold(0.0, f64::max);
    sheet.target("sign a SET / bare ring, highest of four algorithms", "x", Bound::AtMost(1.15), most(sign), None);
    sheet.target("verify a SET / bare ring, highest of four algorithms", "x", Bound::AtMost(1.25), most(verify), None);
    generation(sheet, turns)
}

impl Times {
    fn of(key: &SigningKey, jwks: &JwkSet, claims: &str, turns: &Turns) -> anyhow::Result<Self> {
        let token = key.sign(TYP, claims)?;
        let signed = token.rsplit_once('.').context("a token has three parts")?.0.as_bytes();
        let bare = Bare::new(key)?;
        let signature = bare.sign(signed)?;
        let allowed = [key.algorithm()];
        let mut times = Self::default();
        for _ in 0..turns.rounds {
            times.sign.push(repeat(turns.lasts, || Ok(key.sign(TYP, claims)?))?.cpu_us());
            times.bare_sign.push(repeat(turns.lasts, || bare.sign(signed))?.cpu_us());
            let verify = || {
                let token = Jws::parse(black_box(token.as_bytes()))?;
                Ok(token.verify(jwks, &allowed)?)
            };
            times.verify.push(repeat(turns.lasts, verify)?.cpu_us());
            times.bare_verify.push(repeat(turns.lasts, || bare.verify(signed, &signature))?.cpu_us());
        }
        Ok(times)
    }

    fn note(&self, sheet: &mut Sheet, algorithm: Algorithm) {
        for (act, ours, bare) in [("sign", &self.sign, &self.bare_sign), ("verify", &self.verify, &self.bare_verify)] {
            sheet.figure(SECTION, &format!("{act} a SET, {algorithm}"), "us CPU", ours);
            sheet.figure(SECTION, &format!("{act} a SET, {algorithm}, one core"), "/s", &per_second(ours));
            sheet.figure(SECTION, &format!("{act}, {algorithm}, bare ring"), "us CPU", bare);
            sheet.figure(SECTION, &format!("{act} a SET / bare ring, {algorithm}"), "x", &ratios(ours, bare));
        }
    }
}

/// The cost of making an RSA key, in CPU time and in signatures. It depends on chance: a round is a mean of several keys.
fn generation(sheet: &mut Sheet, turns: &Turns) -> anyhow::Result<()> {
    let (mut key_ms, mut of_signature) = (Vec::new(), Vec::new());
    for _ in 0..turns.rounds {
        // One batch of keys, which takes longer than any round.
        let made = repeat(Duration::ZERO, || Ok(SigningKey::generate(Algorithm::Rs256)?))?.cpu_us();
        let key = SigningKey::generate(Algorithm::Rs256)?;
        let signed = repeat(turns.lasts, || Ok(key.sign(TYP, "{}")?))?.cpu_us();
        key_ms.push(made / 1e3);
        of_signature.push(made / signed);
    }
    sheet.figure(SECTION, "make an RSA key of 2048 bits", "ms CPU", &key_ms);
    sheet.figure(SECTION, "make an RSA key of 2048 bits / sign a SET with it", "x", &of_signature);
    Ok(())
}

fn ratios(ours: &[f64], bare: &[f64]) -> Vec<f64> {
    ours.iter().zip(bare).map(|(ours, bare)| ours / bare).collect()
}

fn per_second(microseconds: &[f64]) -> Vec<f64> {
    microseconds.iter().map(|microseconds| 1e6 / microseconds).collect()
}

/// The same key in `ring`, without a token around the signature.
enum Bare {
    Rsa { pair: RsaKeyPair, padding: &'static dyn RsaEncoding, verification: &'static dyn VerificationAlgorithm },
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Bare {
    fn new(key: &SigningKey) -> anyhow::Result<Self> {
        let der = key.to_pkcs8();
        let rsa =
            |padding, verification| RsaKeyPair::from_pkcs8(der).map(|pair| Self::Rsa { pair, padding, verification });
        let pair = match key.algorithm() {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()).map(Self::P256)
            }
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(der).map(Self::Ed25519),
        };
        pair.map_err(|error| anyhow!("{error}"))
    }

    fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let random = SystemRandom::new();
        let unsigned = |_| anyhow!("ring made no signature");
        match self {
            Self::Rsa { pair, padding, .. } => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &random, message, &mut signature).map_err(unsigned)?;
                Ok(signature)
            }
            Self::P256(pair) => Ok(pair.sign(&random, message).map_err(unsigned)?.as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> anyhow::Result<()> {
        let verified = match self {
            Self::Rsa { pair, verification, .. } => {
                UnparsedPublicKey::new(*verification, pair.public_key()).verify(message, signature)
            }
            Self::P256(pair) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key()).verify(message, signature)
            }
            Self::Ed25519(pair) => UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(message, signature),
        };
        verified.map_err(|_| anyhow!("ring refused its own signature"))
    }
}
