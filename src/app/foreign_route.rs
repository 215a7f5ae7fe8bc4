//! Route syntax of other frameworks, which would be taken for plain text here and match nothing.

/// How a segment of a path is written here, if it is written as elsewhere; the text says what is wrong.
pub(crate) fn mistake(segment: &str) -> Option<String> {
    let here = |right: &str| Some(format!("{segment:?} is written {right} here"));
    if let Some(name) = segment.strip_prefix(':') {
        return Some(colon(segment, name));
    }
    if let Some(name) = segment.strip_prefix("**").or_else(|| segment.strip_prefix('*')) {
        return match split_name(name) {
            ("", _) if segment == "*" => None, // any one segment, in Ktor too
            ("", _) => here("{...}"),
            (name, "") if !name.starts_with('.') => here(&format!("{{{name}...}}")),
            _ => Some(star(segment)),
        };
    }
    if let Some(inner) = enclosed(segment, '<', '>') {
        let (kind, name) = inner.rsplit_once(':').unwrap_or(("", inner));
        let is_tail = kind == "path" || name.ends_with("..");
        let (name, _) = split_name(name);
        return here(&if is_tail { format!("{{{name}...}}") } else { format!("{{{name}}}") });
    }
    if let Some(inner) = enclosed(segment, '[', ']') {
        let (inner, optional) = match enclosed(inner, '[', ']') {
            Some(inner) => (inner, true),
            None => (inner, false),
        };
        return match inner.strip_prefix("...") {
            Some(name) => here(&format!("{{{}...}}", split_name(name).0)),
            None if optional => here(&format!("{{{}?}}", split_name(inner).0)),
            None => here(&format!("{{{}}}", split_name(inner).0)),
        };
    }
    plain_mistake(segment)
}

/// `:name` and what may stand behind it, where names have neither dots nor dashes.
fn colon(segment: &str, name: &str) -> String {
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let (name, rest) = name.split_at(end.unwrap_or(name.len()));
    let right = match rest {
        _ if name.is_empty() => "{name}".to_owned(),
        _ if rest.contains(':') => {
            return format!(
                "{segment:?} has several parameters: a segment holds one parameter at most, as in \
                 {{name}}"
            );
        }
        "?" => format!("{{{name}?}}"),
        "*" | "+" => format!("{{{name}...}}"),
        _ if rest.starts_with('(') => format!("{{{name}}}"),
        _ => format!("{{{name}}}{rest}"),
    };
    format!("{segment:?} is written {right} here")
}

/// What is wrong with text between the slashes, or around a parameter.
fn plain_mistake(segment: &str) -> Option<String> {
    let without_parameter = segment.split(['{', '}']).step_by(2).collect::<String>();
    let has = |sign| without_parameter.contains(sign);
    if has('*') {
        return Some(star(segment));
    }
    if has('\\') || ["(?", "(.", "([", "[^"].iter().any(|start| without_parameter.contains(start)) {
        return Some(format!(
            "{segment:?} is a regular expression: take a parameter, as in {{name}}, and check its value"
        ));
    }
    if has('<') || has('>') {
        return Some(format!(
            "{segment:?} has '<' or '>', which no path has: a parameter is {{name}}"
        ));
    }
    // A number in brackets is a name as any other.
    let mut brackets = without_parameter.split('[').skip(1);
    if brackets.any(|inside| !inside.starts_with(|letter: char| letter.is_numeric())) {
        return Some(format!(
            "{segment:?} has '[' or ']': a parameter is {{name}}, an optional one {{name?}}, and the letters \
             themselves are %5B and %5D"
        ));
    }
    if has('?') || has('#') {
        return Some(format!(
            "{segment:?} has a query, or a fragment, which routes do not look at: an optional parameter is \
             {{name?}}"
        ));
    }
    None
}

fn star(segment: &str) -> String {
    format!(
        "{segment:?} has a '*', which stands for a whole segment: one with text around a parameter is \
         written {{name}}.txt, the rest of a path {{name...}}"
    )
}

/// What is wrong with the inner side of `{..}`, without `?` or `...` behind it.
pub(crate) fn name_mistake(inner: &str) -> Option<String> {
    let here = |right: &str| Some(format!("{{{inner}}} is written {right} here"));
    let (name, rest) = split_name(inner);
    if !name.is_empty() && rest.is_empty() && !name.starts_with('.') {
        return None;
    }
    let bare = split_name(inner.trim_start_matches(['*', '.', '+', ':', '<', '?', ' '])).0;
    if inner.starts_with(['*', '.', '+']) || matches!(rest, "*" | "+" | ".." | ".") {
        return here(&format!("{{{bare}...}}"));
    }
    if inner.starts_with('?') {
        return here(&format!("{{{bare}?}}"));
    }
    match rest.strip_prefix(':') {
        Some("path" | "*" | "**" | ".*" | ".+" | "*path" | "*rest" | "*path?") => {
            here(&format!("{{{bare}...}}"))
        }
        Some(_) => Some(format!(
            "{{{inner}}} is written {{{bare}}} here, without a type or a regular expression: check the value \
             in the handler"
        )),
        None if inner == "$" => Some(
            "{$} is not needed here: a path with a slash at its end is another than one without"
                .into(),
        ),
        None => Some(format!(
            "{{{inner}}} is no parameter: the name is made of letters, digits, '_', '-' and '.', as in \
             {{name}}"
        )),
    }
}

/// A name at the start of a text, and what follows it.
fn split_name(text: &str) -> (&str, &str) {
    let is_part = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    let end = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    let (name, _) = text.split_at(end);
    let name = name.trim_end_matches('.');
    text.split_at(name.len())
}

fn enclosed(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}
