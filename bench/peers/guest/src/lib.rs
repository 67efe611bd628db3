//! The filter of the bench as an extism plug-in. Input: the act's name and the claims, separated by a line break.
//! Output: the verdict's first letter, followed by its text.

#[path = "../../../guest/src/acts.rs"]
#[expect(dead_code, reason = "the bench reads the list of acts")]
mod acts;

use acts::Outcome;
use extism_pdk::{Error, FnResult, plugin_fn};

#[plugin_fn]
pub fn process(input: String) -> FnResult<String> {
    let (act, claims) = input.split_once('\n').ok_or_else(|| Error::msg("no line break"))?;
    let (letter, text) = match acts::act(act, claims).map_err(Error::msg)? {
        Outcome::Pass => ("p", String::new()),
        Outcome::Drop(reason) => ("d", reason),
        Outcome::Patch(patch) => ("m", patch),
        Outcome::Replace(claims) => ("r", claims),
    };
    Ok(letter.to_owned() + &text)
}
