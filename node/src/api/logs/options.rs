//! What a client asks of logs, as Docker's engine reads it.

use std::time::UNIX_EPOCH;

use shoal_runtime::log::rfc3339;

use crate::api::error::ApiError;
use crate::api::params::Params;

/// The options of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) tail: Option<u64>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) follow: bool,
    pub(super) timestamps: bool,
    pub(super) details: bool,
}

impl Options {
    pub(super) fn read(params: &Params) -> Result<Self, ApiError> {
        let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
        if !stdout && !stderr {
            return Err(ApiError::BadRequest("Bad parameters: you must choose at least one stream".to_owned()));
        }
        Ok(Self {
            tail: tail(params)?,
            since: time(params, "since")?,
            until: time(params, "until")?,
            stdout,
            stderr,
            follow: params.flag("follow"),
            timestamps: params.flag("timestamps"),
            details: params.flag("details"),
        })
    }
}

fn tail(params: &Params) -> Result<Option<u64>, ApiError> {
    match params.text("tail") {
        None | Some("all" | "-1") => Ok(None),
        Some(_) => params.number("tail").map(Some),
    }
}

/// Returns a parameter as the text of a time; 0 is none.
fn time(params: &Params, name: &str) -> Result<Option<String>, ApiError> {
    let time = params.time(name)?.filter(|time| !time.is_zero());
    Ok(time.and_then(|time| UNIX_EPOCH.checked_add(time)).map(rfc3339))
}
