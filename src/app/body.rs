//! A whole request body as application code sees it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

#[cfg(feature = "json")]
use serde::Deserialize;

#[cfg(feature = "json")]
use crate::protocol::content::Converter;
use crate::words::quoted::Quoted;

use crate::app::call::Call;
use crate::app::response::Response;

/// The whole body of a request; see [`Routing::post`](crate::Routing::post).
///
/// ```
/// use wirewheel::body::{Body, BodyError};
/// use wirewheel::{Call, Response};
/// fn note(_call: &Call, body: Body<'_>) -> Result<Response, BodyError> {
///     println!("{} bytes of {:?}", body.bytes().len(), body.content_type());
///     let form = body.form()?; // 415 if it is none
///     match form.get("text") {
///         Some(text) => Ok(Response::text(format!("noted: {text}"))),
///         None => Ok(Response::text(format!("no text among {}", form.pairs().count())).status(400)),
///     }
/// }
/// fn line(_call: &Call, body: Body<'_>) -> Result<String, BodyError> {
///     Ok(body.text()?.trim().to_owned()) // 400 if it is not UTF-8
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Body<'a> {
    bytes: &'a [u8],
    content_type: Option<&'a str>,
    #[cfg(feature = "json")]
    converter: &'a Converter,
}

impl fmt::Debug for Body<'_> {
    /// Without what is in it, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, kind) = (self.bytes.len(), self.content_type);
        f.debug_struct("Body").field("bytes", &bytes).field("content_type", &kind).finish()
    }
}

impl<'a> Body<'a> {
    pub(crate) fn new(
        bytes: &'a [u8],
        call: &'a Call,
        #[cfg(feature = "json")] converter: &'a Converter,
    ) -> Self {
        Self {
            bytes,
            content_type: call.header("content-type"),
            #[cfg(feature = "json")]
            converter,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its `Content-Type` as it was sent.
    pub fn content_type(&self) -> Option<&'a str> {
        self.content_type
    }

    /// Its bytes as text, whatever its type.
    ///
    /// # Errors
    /// [`BodyError::NotText`] if they are not UTF-8.
    pub fn text(&self) -> Result<&'a str, BodyError> {
        std::str::from_utf8(self.bytes).map_err(|_| BodyError::NotText)
    }

    /// The fields of a form (`application/x-www-form-urlencoded`, what browsers send by default).
    ///
    /// # Errors
    /// [`BodyError::WrongType`] for another type.
    pub fn form(&self) -> Result<Form<'a>, BodyError> {
        let is_form = |found: &str| found == "application/x-www-form-urlencoded";
        if self.content_type.is_some_and(|found| is_form(&essence(found))) {
            return Ok(Form { bytes: self.bytes });
        }
        Err(self.wrong_type())
    }

    /// Reads a value as the route's converter understands it
    /// ([`BodyRoute::content_converter`](crate::body::BodyRoute::content_converter), or the installed one);
    /// feature `json`.
    ///
    /// # Errors
    /// [`BodyError::NoConverter`], [`BodyError::WrongType`] where the converter
    /// [takes no such type](crate::json::ContentConverter::accepts_type), [`BodyError::BadData`].
    ///
    /// ```
    /// use serde::Deserialize;
    /// use wirewheel::Call;
    /// use wirewheel::body::{Body, BodyError};
    /// #[derive(Deserialize)]
    /// struct Blink<'a> { led: &'a str, times: u32 }
    /// fn blink(_call: &Call, body: Body<'_>) -> Result<String, BodyError> {
    ///     let blink: Blink<'_> = body.deserialize()?;
    ///     Ok(format!("{} blinks {} times", blink.led, blink.times))
    /// }
    /// ```
    #[cfg(feature = "json")]
    pub fn deserialize<T: Deserialize<'a>>(&self) -> Result<T, BodyError> {
        let converter = self.converter.0.as_deref().ok_or(BodyError::NoConverter)?;
        if !self.content_type.is_some_and(|found| converter.accepts_type(&essence(found))) {
            return Err(self.wrong_type());
        }
        Converter::read_value(converter, self.bytes).map_err(BodyError::BadData)
    }

    fn wrong_type(&self) -> BodyError {
        BodyError::WrongType { found: self.content_type.map(str::to_owned) }
    }
}

/// A `Content-Type` without its parameters, in small letters (RFC 9110 section 8.3.1).
pub(crate) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The fields of a form, decoded; see [`Body::form`].
///
/// ```
/// use wirewheel::body::Form;
/// fn tags(form: &Form<'_>) -> Vec<String> {
///     if form.get("untagged").is_some() {
///         return Vec::new();
///     }
///     let tags = form.pairs().filter(|(name, _)| name == "tag");
///     tags.map(|(_, value)| value.into_owned()).collect()
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Form<'a> {
    bytes: &'a [u8],
}

impl fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("bytes", &self.bytes.len()).finish()
    }
}

impl<'a> Form<'a> {
    /// Names and values in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        form_urlencoded::parse(self.bytes)
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.pairs().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// Why a body is not what it was taken for. As the answer of a request it has the status that fits.
///
/// ```
/// use wirewheel::Response;
/// use wirewheel::body::BodyError;
/// assert_eq!(BodyError::NotText.to_string(), "the body is no UTF-8 text");
/// let answer: Response = BodyError::NotText.into(); // 400, with these words
/// # let _ = answer;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// It is no UTF-8: 400.
    NotText,
    /// Its `Content-Type` is another: 415.
    WrongType {
        /// What it is, if it has one.
        found: Option<String>,
    },
    /// It does not hold what was asked for: 400.
    BadData(String),
    /// No converter is installed: 500.
    NoConverter,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText => f.write_str("the body is no UTF-8 text"),
            Self::WrongType { found: Some(found) } => {
                write!(f, "a body of type {} is not taken here", Quoted(found))
            }
            Self::WrongType { found: None } => f.write_str("the body needs a Content-Type"),
            Self::BadData(reason) => write!(f, "the body: {reason}"),
            Self::NoConverter => f.write_str(
                "no converter reads bodies: call WebSockets::content_converter, or the route's",
            ),
        }
    }
}

impl Error for BodyError {}

impl From<BodyError> for Response {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::NoConverter => Self::faulty(error.to_string()),
            BodyError::WrongType { .. } => Self::refusal_because(415, &error),
            BodyError::NotText | BodyError::BadData(_) => Self::refusal_because(400, &error),
        }
    }
}

/// So that a function that answers can use `?`.
impl<T: Into<Self>, E: Into<Self>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}
