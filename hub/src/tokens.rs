//! The tokens of `--token-file`: who may connect.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use percent_encoding::percent_decode_str;
use wirewheel::{Accept, Call, Response};

/// The shortest token; shorter ones can be guessed.
const SHORTEST: usize = 8;
/// The parameter of the query in which browsers show it.
const PARAMETER: &str = "token";

/// The tokens, of which a client has to show one, on whichever loop.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    tokens: RwLock<Vec<String>>,
}

/// The token that a request has shown, kept with it so that it is passed on to nobody.
#[derive(Debug)]
pub(crate) struct Shown(pub(crate) String);

impl Shown {
    /// Whether a text gives it away.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        text.contains(&self.0) || unescaped(text).contains(&self.0)
    }

    /// Whether the name of a header, in lower case, gives it away.
    pub(crate) fn is_in_name(&self, name: &str) -> bool {
        name.contains(&self.0.to_ascii_lowercase())
    }

    /// Whether a pair of a query is the one that shows a token, or gives it away.
    pub(crate) fn is_in_pair(&self, pair: &str) -> bool {
        let name = pair.split('=').next().unwrap_or_default();
        unescaped(name) == PARAMETER || self.is_in(pair)
    }
}

fn unescaped(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

impl Tokens {
    /// Reads one token a line; empty lines and those from `#` are passed over.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        // A working folder may be another one when they are read again.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let tokens = RwLock::new(tokens_in(&path)?);
        Ok(Self { path, tokens })
    }

    /// Reads the file again. Where that fails, the tokens are what they were.
    pub(crate) fn reload(&self) -> Result<usize, String> {
        let tokens = tokens_in(&self.path)?;
        let count = tokens.len();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        Ok(count)
    }

    /// Lets a client in that shows a token, as a header or, as browsers must, in the query.
    pub(crate) fn admit(&self, call: &Call) -> Result<Accept, Response> {
        let bearer = call.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        let shown = bearer.or_else(|| call.query_parameter(PARAMETER).map(Into::into));
        if let Some(shown) = shown.filter(|shown| self.has(shown)) {
            call.attach(Shown(shown));
            return Ok(Accept::new());
        }
        let refusal = Response::text("401 Unauthorized: show a token\n").status(401);
        Err(refusal.header("WWW-Authenticate", "Bearer"))
    }

    /// In a time that does not tell how much of a token was right.
    fn has(&self, shown: &str) -> bool {
        let same = |token: &String| {
            let differences = token.bytes().zip(shown.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
            (differences == 0) & (token.len() == shown.len())
        };
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().fold(false, |found, token| found | same(token))
    }
}

/// The tokens of a file, of which there is at least one.
pub(crate) fn tokens_in(path: &Path) -> Result<Vec<String>, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let lines = text.lines().map(str::trim);
    let tokens: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if tokens.is_empty() {
        return Err(format!("{shown} has no token: write one a line"));
    }
    if tokens.iter().any(|token| token.len() < SHORTEST) {
        return Err(format!("{shown} has a token of less than {SHORTEST} characters"));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_whole_or_wrong() {
        let tokens = RwLock::new(vec!["swordfish".into(), "correct horse".into()]);
        let tokens = Tokens { path: PathBuf::new(), tokens };
        assert!(tokens.has("swordfish") && tokens.has("correct horse"));
        for wrong in ["", "swordfis", "swordfish ", "Swordfish", "correct"] {
            assert!(!tokens.has(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_without_good_tokens_is_refused() {
        let path =
            std::env::temp_dir().join(format!("wirewheel-hub-tokens-{}", std::process::id()));
        for (text, complaint) in
            [("# none\n\n", "no token"), ("longenough\nshort\n", "less than 8")]
        {
            fs::write(&path, text).unwrap();
            assert!(Tokens::read(&path).unwrap_err().contains(complaint));
        }
        fs::write(&path, "# two\n swordfish \ncorrect horse\n").unwrap();
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!(*tokens.tokens.read().unwrap(), ["swordfish", "correct horse"]);
        fs::write(&path, "short\n").unwrap();
        assert!(tokens.reload().is_err() && tokens.has("swordfish"), "those before stay");
        fs::write(&path, "another one\n").unwrap();
        assert_eq!(tokens.reload(), Ok(1));
        assert!(tokens.has("another one") && !tokens.has("swordfish"));
        fs::remove_file(&path).unwrap();
        assert!(Tokens::read(&path).unwrap_err().contains("tokens-"));
    }
}
