//! Where the hub is that topics are joined to, and what it is shown: as the options say it.

use std::path::PathBuf;

use crate::check;
use crate::options::Given;
use crate::tokens::tokens_in;

/// Where the hub above is, what it is shown, and by whom its certificate has to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamPlace {
    pub(crate) url: String,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

impl UpstreamPlace {
    /// What the options say; an error where they do not fit together.
    pub(crate) fn from_given(given: &Given) -> Result<Option<Self>, String> {
        let file = |name| {
            // A working folder may be another one when they are read again.
            let path = given.one(name).map(PathBuf::from);
            path.map(|path| std::path::absolute(&path).unwrap_or(path))
        };
        let (token_file, ca) = (file("upstream-token-file"), file("upstream-ca"));
        let Some(url) = given.texts("upstream")?.pop() else {
            let mut files = ["upstream-token-file", "upstream-ca"].into_iter();
            return match files.find(|name| given.is_on(name)) {
                None => Ok(None),
                Some(name) => Err(format!("--{name} is for --upstream, which is not given")),
            };
        };
        let place = Self { url: url.trim_end_matches('/').to_owned(), token_file, ca };
        place.check()?;
        Ok(Some(place))
    }

    /// Says what is wrong without the URL itself, which may hold a secret.
    fn check(&self) -> Result<(), String> {
        let is_secured = self.url.starts_with("wss:");
        let is_socket = self.url.starts_with("ws+unix:");
        Err(if !cfg!(feature = "upstream") {
            "this hub was built without --upstream: build it with --features upstream"
        } else if (is_secured || self.ca.is_some()) && !cfg!(feature = "tls") {
            "this hub was built without TLS: build it with --features upstream,tls"
        } else if self.ca.is_some() && !is_secured {
            "--upstream-ca is for certificates: give --upstream wss://.."
        } else if self.url.contains(['?', '#']) {
            "--upstream: give a URL without a query; a token is shown by --upstream-token-file"
        } else if self.token_file.is_some() && self.url.contains('@') && !is_socket {
            "--upstream: give a user in the URL or --upstream-token-file, not both"
        } else {
            return Ok(());
        }
        .into())
    }

    /// Whether the token and the authority are there for this process to read.
    pub(crate) fn readable(&self) -> Result<(), String> {
        if let Some(path) = &self.token_file {
            tokens_in(path).map_err(|mistake| format!("--upstream-token-file: {mistake}"))?;
        }
        self.ca.as_deref().map_or(Ok(()), |path| check::readable("upstream-ca", path))
    }
}
