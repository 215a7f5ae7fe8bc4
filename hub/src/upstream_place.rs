//! Where the hub is that topics are joined to, and what it is shown: as the options say it.

use std::path::{Path, PathBuf};

use crate::tokens::tokens_in;

/// Where the hub above is, and what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamPlace {
    pub(crate) url: String,
    pub(crate) token_file: Option<PathBuf>,
}

impl UpstreamPlace {
    /// What the options say; an error where they do not fit together.
    pub(crate) fn new(
        url: Option<String>,
        token_file: Option<&Path>,
    ) -> Result<Option<Self>, String> {
        let Some(url) = url else {
            return match token_file {
                None => Ok(None),
                Some(_) => {
                    Err("--upstream-token-file is for --upstream, which is not given".into())
                }
            };
        };
        if !cfg!(feature = "upstream") {
            let text = "this hub was built without --upstream: build it with --features upstream";
            return Err(text.into());
        }
        let url = url.trim_end_matches('/').to_owned();
        // Not the URL itself: it may hold a secret.
        if url.contains(['?', '#']) {
            return Err(
                "--upstream: give a URL without a query; a token is shown by --upstream-token-file"
                    .into(),
            );
        }
        if token_file.is_some() && url.contains('@') && !url.starts_with("ws+unix:") {
            return Err(
                "--upstream: give a user in the URL or --upstream-token-file, not both".into()
            );
        }
        // A working folder may be another one when it is read again.
        let token_file =
            token_file.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        Ok(Some(Self { url, token_file }))
    }

    /// Whether the token is there.
    pub(crate) fn readable(&self) -> Result<(), String> {
        let Some(path) = &self.token_file else { return Ok(()) };
        tokens_in(path).map(drop).map_err(|mistake| format!("--upstream-token-file: {mistake}"))
    }
}
