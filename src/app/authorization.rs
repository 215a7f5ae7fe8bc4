//! Who a request says it is from: Basic (RFC 7617) and Bearer (RFC 6750) authentication.

use std::fmt;
use std::hint::black_box;

use data_encoding::BASE64;

use crate::app::call::Call;
use crate::app::response::Response;

/// A name and a password, as `Authorization: Basic` shows them; by [`Call::basic_credentials`].
///
/// ```
/// use wirewheel::auth::{BasicCredentials, basic_challenge};
/// use wirewheel::{Call, Response};
/// fn page(call: &Call) -> Response {
///     let known = |shown: &BasicCredentials| shown.is("anna", "correct horse");
///     match call.basic_credentials().filter(known) {
///         Some(shown) => Response::text(format!("hello {}", shown.user())),
///         None => basic_challenge("the box"),
///     }
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredentials {
    user: String,
    password: String,
}

impl fmt::Debug for BasicCredentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicCredentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl BasicCredentials {
    /// The name. Nobody has checked it.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, to be compared by [`is_same_secret`] or given to what keeps hashes of them.
    ///
    /// ```
    /// fn is_short(shown: &wirewheel::auth::BasicCredentials) -> bool {
    ///     shown.password().len() < 12
    /// }
    /// ```
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Whether they are these; both are compared by [`is_same_secret`], whatever the other says.
    pub fn is(&self, user: &str, password: &str) -> bool {
        is_same_secret(&self.user, user) & is_same_secret(&self.password, password)
    }

    /// RFC 7617 section 2: a name has no colon, a password may; neither has control characters.
    fn decode(encoded: &str) -> Option<Self> {
        // RFC 9110 section 11.2: token68 ends with its padding. The decoder takes what follows it as well.
        if encoded.trim_end_matches('=').contains('=') {
            return None;
        }
        let text = String::from_utf8(BASE64.decode(encoded.as_bytes()).ok()?).ok()?;
        let (user, password) = text.split_once(':').filter(|_| !text.contains(char::is_control))?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

impl Call {
    /// The name and password of `Authorization: Basic`, in UTF-8, which [`basic_challenge`] asks for; `None`
    /// where there are none, or what is there is malformed. For pages and upgrade hooks alike; a page cannot
    /// set headers on a WebSocket, but browsers send what was entered for the page.
    ///
    /// They are readable to everybody on the way: use TLS.
    ///
    /// ```
    /// use wirewheel::auth::basic_challenge;
    /// use wirewheel::{Accept, Call, Response};
    /// fn on_upgrade(call: &Call) -> Result<Accept, Response> {
    ///     match call.basic_credentials() {
    ///         Some(shown) if shown.is("anna", "correct horse") => Ok(Accept::new()),
    ///         _ => Err(basic_challenge("the box")),
    ///     }
    /// }
    /// ```
    pub fn basic_credentials(&self) -> Option<BasicCredentials> {
        BasicCredentials::decode(self.authorization("basic")?)
    }

    /// The token of `Authorization: Bearer`; `None` where there is none, or what is there is malformed. One
    /// in the query is not looked for: it would be logged on the way.
    ///
    /// ```
    /// use wirewheel::auth::{bearer_challenge, is_same_secret};
    /// use wirewheel::{Accept, Call, Response};
    /// fn on_upgrade(call: &Call) -> Result<Accept, Response> {
    ///     match call.bearer_token() {
    ///         Some(token) if is_same_secret(token, "correct-horse") => Ok(Accept::new()),
    ///         _ => Err(bearer_challenge(call, "the box")),
    ///     }
    /// }
    /// ```
    pub fn bearer_token(&self) -> Option<&str> {
        // RFC 6750 section 2.1: b64token, in any alphabet.
        let token = self.authorization("bearer")?;
        let letters = token.trim_end_matches('=');
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        (!letters.is_empty() && letters.bytes().all(is_letter)).then_some(token)
    }

    /// What stands behind this scheme in the one `Authorization` line; of several none can be the one that
    /// was meant.
    fn authorization(&self, scheme: &str) -> Option<&str> {
        let mut lines = self.head().all("authorization");
        let (line, None) = (lines.next()?, lines.next()) else { return None };
        let (found, rest) = line.split_once(' ')?;
        found.eq_ignore_ascii_case(scheme).then(|| rest.trim_matches(' '))
    }
}

/// 401 that asks for a name and a password (RFC 7617), in UTF-8: browsers ask their users, and show them the
/// realm.
///
/// ```
/// let answer = wirewheel::auth::basic_challenge("the \"box\" in the cellar");
/// # let _ = answer;
/// ```
pub fn basic_challenge(realm: &str) -> Response {
    let challenge = format!("Basic realm={}, charset=\"UTF-8\"", quoted(realm));
    Response::refusal(401).header("WWW-Authenticate", challenge)
}

/// 401 that asks for a token (RFC 6750), and says that it was invalid where one was shown.
///
/// ```
/// use wirewheel::auth::bearer_challenge;
/// use wirewheel::{Call, Response};
/// fn refuse(call: &Call) -> Response {
///     bearer_challenge(call, "devices").header("Cache-Control", "no-store")
/// }
/// ```
pub fn bearer_challenge(call: &Call, realm: &str) -> Response {
    let mut challenge = format!("Bearer realm={}", quoted(realm));
    // Section 3.1: without any credentials in the request, no error is to be named.
    if call.authorization("bearer").is_some() {
        challenge.push_str(", error=\"invalid_token\"");
    }
    Response::refusal(401).header("WWW-Authenticate", challenge)
}

/// A quoted-string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

/// Whether two secrets are the same, in a time that does not depend on where they differ: who may try as
/// often as he likes must not find out byte by byte. How long the known one is may be found out.
///
/// ```
/// use wirewheel::auth::is_same_secret;
/// assert!(is_same_secret("correct horse", "correct horse"));
/// assert!(!is_same_secret("correct hors", "correct horse"));
/// ```
// Each byte is looked at, and all differences gathered: the compiler is kept from seeing in between that one
// is enough. Of the dependencies none has this without the feature `tls`.
#[inline(never)]
pub fn is_same_secret(shown: impl AsRef<[u8]>, known: impl AsRef<[u8]>) -> bool {
    let (shown, known) = (shown.as_ref(), known.as_ref());
    let mut differences = u8::from(shown.len() != known.len());
    for (a, b) in shown.iter().zip(known) {
        differences = black_box(differences | (a ^ b));
    }
    black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::call::tests::call;

    fn with(lines: &str) -> Call {
        call(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
    }

    /// RFC 7617 sections 2 and 2.1 have the first two.
    #[test]
    fn basic_credentials_are_read_or_refused_as_a_whole() {
        for (value, expected) in [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("BASIC dGVzdDoxMjPCow==", Some(("test", "123£"))),
            ("Basic   YTpiOmM=  ", Some(("a", "b:c"))),
            ("basic Og==", Some(("", ""))),
            ("Basic YWI=", None), // no colon
            ("Basic YTpi", Some(("a", "b"))),
            ("Basic YTpiCg==", None), // a line feed
            ("Basic YTqj", None),     // ISO 8859-1
            ("Basic YTpiOmM", None),  // no padding
            ("Basic YTp=", None),     // bits that say nothing
            ("Basic YTpi YTpi", None),
            ("Basic QQ==OmI=", None), // padding in the middle
            ("Basic YTpi====", None), // too much of it
            ("Basic", None),
            ("Basic ", None),
            ("Bearer YTpi", None),
            ("Basic\tYTpi", None),
        ] {
            let call = with(&format!("Authorization: {value}\r\n"));
            let found = call.basic_credentials();
            let found = found.as_ref().map(|found| (found.user(), found.password()));
            assert_eq!(found, expected, "{value}");
        }
        assert_eq!(with("").basic_credentials(), None);
        let twice = "Authorization: Basic YTpi\r\nAuthorization: Basic YTpi\r\n";
        assert_eq!(with(twice).basic_credentials(), None);
        let shown = with("Authorization: Basic YTpi\r\n").basic_credentials().unwrap();
        assert!(shown.is("a", "b") && !shown.is("a", "c") && !shown.is("b", "b"));
        assert!(!format!("{shown:?}").contains("\"b\""));
    }

    #[test]
    fn bearer_tokens_are_read() {
        for (value, expected) in [
            ("Bearer mF_9.B5f-4.1JqM", Some("mF_9.B5f-4.1JqM")),
            ("bearer a+/~==", Some("a+/~==")),
            ("Bearer ", None),
            ("Bearer =", None),
            ("Bearer a=b", None),
            ("Bearer a b", None),
            ("Bearer a,b", None),
            ("Bearerx", None),
        ] {
            let call = with(&format!("Authorization: {value}\r\n"));
            assert_eq!(call.bearer_token(), expected, "{value}");
        }
    }

    #[test]
    fn challenges_quote_their_realm_and_name_the_error_only_to_who_has_shown_a_token() {
        let header = |response: Response| {
            assert_eq!(response.status_code(), 401);
            response.into_headers().pop().unwrap()
        };
        let basic = header(basic_challenge(r#"a "b" \c"#));
        let expected = r#"Basic realm="a \"b\" \\c", charset="UTF-8""#;
        assert_eq!(basic, ("WWW-Authenticate".into(), expected.into()));
        let (_, none) = header(bearer_challenge(&with(""), "box"));
        assert_eq!(none, r#"Bearer realm="box""#);
        let (_, wrong) = header(bearer_challenge(&with("Authorization: Bearer x\r\n"), "box"));
        assert_eq!(wrong, r#"Bearer realm="box", error="invalid_token""#);
        assert_eq!(basic_challenge("a\r\nb").status_code(), 500);
    }

    #[test]
    fn secrets_are_the_same_or_not_wherever_they_differ() {
        let secret = "0123456789abcdef";
        for at in 0..secret.len() {
            let mut other = secret.as_bytes().to_vec();
            other[at] ^= 0x80;
            assert!(!is_same_secret(&other, secret) && !is_same_secret(secret, &other[..at]));
        }
        assert!(
            is_same_secret(secret, secret) && is_same_secret("", "") && !is_same_secret("", "a")
        );
    }
}
