//! `setgate emit`: signs events as a product would and sends them to a host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};
use http::Method;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_dialects::{Scheme, check_pasted_text, schemes, sign_as_sender};
use setgate_domain::id::{SourceName, TenantId};
use setgate_domain::secret::Secret;
use setgate_domain::text::strip_bom;

use super::client::{Answer, Client};
use super::connection::Connection;
use crate::cli::out::say;

/// Options of `emit`.
#[derive(Debug, Parser)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The tenant that owns the source.
    #[arg(long, env = "SETGATE_TENANT", required_unless_present = "to")]
    tenant: Option<TenantId>,
    /// The source.
    #[arg(long, required_unless_present = "to")]
    source: Option<SourceName>,
    /// The full URL of the source, such as http://127.0.0.1:8080/ingest/acme/logto, instead of --host, --tenant and
    /// --source
    #[arg(long, value_name = "URL", conflicts_with = "source")]
    to: Option<url::Url>,
    /// How to authenticate to the source.
    #[arg(long, value_enum, default_value = "open")]
    proof: Proof,
    /// The shared secret or token of the proof. For a source that accepts keys of its tenant, the key of --key-file is
    /// used.
    #[arg(long, env = "SETGATE_EMIT_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// JSON files, one event each.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// The proofs that a source may require.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// A signature of this scheme.
    Signature(&'static Scheme),
    /// `Authorization: Bearer`
    Bearer,
    /// None
    Open,
}

impl ValueEnum for Proof {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Proof>> =
            LazyLock::new(|| schemes().map(Proof::Signature).chain([Proof::Bearer, Proof::Open]).collect());
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Signature(scheme) => PossibleValue::new(scheme.name()).help(format!("`{}`", scheme.header())),
            Self::Bearer => PossibleValue::new("bearer").help("`Authorization: Bearer`"),
            Self::Open => PossibleValue::new("open").help("None"),
        })
    }
}

/// Sends each file as one event.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (client, path) = args.target()?;
    let secret = args.secret()?;
    if let Some(secret) = &secret {
        check_pasted_text(secret).map_err(|why| anyhow!("the secret is not valid: {why}"))?;
    }
    let mut refused = 0;
    for file in &args.files {
        let body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let answer = event(&client, &path, args.proof, secret.as_deref(), strip_bom(&body).to_vec().into()).await?;
        if answer.status.is_success() {
            say!("{}: {}", file.display(), answer.in_words());
        } else {
            refused += 1;
            say!("{}: POST {}: {}", file.display(), client.url(&path), answer.in_words());
        }
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    /// The host and the path of the source.
    fn target(&self) -> anyhow::Result<(Client, String)> {
        let Some(to) = &self.to else {
            let (Some(tenant), Some(source)) = (&self.tenant, &self.source) else {
                bail!("select the source with --tenant and --source, or give its full URL with --to");
            };
            return Ok((self.connection.without_key()?, format!("/ingest/{tenant}/{source}")));
        };
        let mut host = to.clone();
        host.set_path("");
        host.set_query(None);
        let connection = Connection { host, ..self.connection.clone() };
        Ok((connection.without_key()?, to[url::Position::BeforePath..].to_owned()))
    }

    /// The secret of the proof. For a bearer token, the tenant's key is the fallback.
    fn secret(&self) -> anyhow::Result<Option<String>> {
        match (&self.secret, self.proof) {
            (None, Proof::Bearer) => self.connection.key(),
            (secret, _) => Ok(secret.clone()),
        }
    }
}

/// Signs and sends one event.
pub async fn event(
    client: &Client,
    path: &str,
    proof: Proof,
    secret: Option<&str>,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    match (proof, secret) {
        (Proof::Open, _) => {}
        (Proof::Bearer, None) => {
            bail!("this proof requires the token as --secret, or a key of the tenant with --key-file")
        }
        (_, None) => bail!("this proof requires --secret"),
        (Proof::Bearer, Some(token)) => headers.push(("authorization", format!("Bearer {token}"))),
        (Proof::Signature(scheme), Some(secret)) => {
            let (secret, id) = (Secret::new(secret.to_owned()), format!("emit-{:032x}", crypto::random_u128()));
            let now = Clock::system().now();
            headers.extend(sign_as_sender(scheme, &secret, &id, now, &body).map_err(|why| anyhow!(why))?);
        }
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.send(Method::POST, path, &headers, body).await
}
