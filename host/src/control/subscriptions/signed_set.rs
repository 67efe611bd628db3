//! Checks the settings of signed SETs.

use setgate_domain::issuer_key::signing_key;
use setgate_domain::subscription::{Format, SignedSet};
use setgate_domain::time::Timestamp;
use setgate_ledger::TenantView;

use crate::control::Error;

/// The settings of a request. The format `signed_set` requires them, and an issuer key that signs now.
pub(super) fn take(
    format: Format,
    given: Option<SignedSet>,
    view: &TenantView,
    now: Timestamp,
) -> Result<Option<SignedSet>, Error> {
    match (format, given) {
        (Format::SignedSet, Some(settings)) => {
            settings.check().map_err(|why| Error::invalid("signed_set/audience", why))?;
            let keys = view.issuer_keys.values().map(|key| &key.value);
            if signing_key(keys, settings.algorithm, now).is_none() {
                let why = format!(
                    "the tenant has no issuer key that signs {} now: create one by POST /api/v1/tenants/{}/issuer-keys",
                    settings.algorithm, view.tenant.value.id
                );
                return Err(Error::invalid("signed_set/algorithm", why));
            }
            Ok(Some(settings))
        }
        (Format::SignedSet, None) => Err(Error::invalid(
            "signed_set",
            "the format `signed_set` requires it: give at least `{\"audience\": [\"https://receiver.example/\"]}`",
        )),
        (Format::Set | Format::Original, Some(_)) => {
            Err(Error::invalid("signed_set", "it is only for the format `signed_set`: leave it out, or set the format"))
        }
        (Format::Set | Format::Original, None) => Ok(None),
    }
}
