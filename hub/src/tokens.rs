//! Owns who may connect: the tokens of `--token-file`.

use std::fs;
use std::path::Path;

use wirewheel::{Accept, Call, Response};

/// The shortest token; shorter ones can be guessed.
const SHORTEST: usize = 8;

/// The tokens, of which a client has to show one.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<String>);

impl Tokens {
    /// Reads one token a line; empty lines and those from `#` are passed over.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
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
        Ok(Self(tokens))
    }

    /// Lets a client in that shows a token, as a header or, as browsers must, in the query.
    pub(crate) fn admit(&self, call: &Call) -> Result<Accept, Response> {
        let bearer = call.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        let shown = bearer.or_else(|| call.query_parameter("token").map(Into::into));
        if shown.is_some_and(|shown| self.has(&shown)) {
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
        self.0.iter().fold(false, |found, token| found | same(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_whole_or_wrong() {
        let tokens = Tokens(vec!["swordfish".into(), "correct horse".into()]);
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
        assert_eq!(Tokens::read(&path).unwrap().0, ["swordfish", "correct horse"]);
        fs::remove_file(&path).unwrap();
        assert!(Tokens::read(&path).unwrap_err().contains("tokens-"));
    }
}
