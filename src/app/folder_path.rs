//! What a request's path names in a folder, and the patterns of such paths.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

const WELL_KNOWN: &str = ".well-known";

/// The names on the way to a file, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FolderPath<'a> {
    pub(super) names: Vec<Cow<'a, str>>,
    /// It ends with a slash: what it names is a folder.
    pub(super) is_folder: bool,
}

impl<'a> FolderPath<'a> {
    /// Reads the path of a request below a mount of so many segments. It is cut before it is decoded, so
    /// that no name has a slash in it. `None` for what can name nothing: bytes that are no text, names that
    /// are more than a name.
    pub(super) fn parse(path: &'a str, mount_segments: usize) -> Option<Self> {
        let mut pieces = path.strip_prefix('/')?.split('/').peekable();
        for _ in 0..mount_segments {
            pieces.find(|piece| !piece.is_empty())?;
        }
        if pieces.peek().is_none() {
            return Some(Self { names: Vec::new(), is_folder: false }); // the mount without a slash
        }
        let decode = |piece| percent_decode_str(piece).decode_utf8().ok();
        let mut names = pieces.map(decode).collect::<Option<Vec<_>>>()?;
        let is_folder = names.last().is_some_and(|last| last.is_empty());
        if is_folder {
            names.pop();
        }
        let is_name = |name: &Cow<'_, str>| {
            !matches!(name.as_ref(), "" | "." | "..") && !name.contains(['/', '\0'])
        };
        names.iter().all(is_name).then_some(Self { names, is_folder })
    }

    /// Whether a name on the way begins with a dot, but for the one that is meant to be asked for (RFC
    /// 8615).
    pub(super) fn is_hidden(&self) -> bool {
        let beneath = match self.names.split_first() {
            Some((first, beneath)) if first == WELL_KNOWN => beneath,
            _ => &self.names,
        };
        beneath.iter().any(|name| name.starts_with('.'))
    }
}

/// Whether a path fits a pattern, in which `*` stands for any characters, slashes too. Each star is tried
/// at its next place only when what follows it does not fit: the work is the product of both lengths at
/// most.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty(); // no star
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some((_, behind)) = rest.split_once(piece) else { return false };
        rest = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str, mount: usize) -> Option<String> {
        let path = FolderPath::parse(path, mount)?;
        Some(format!("{}{}", path.names.join("|"), if path.is_folder { "|" } else { "" }))
    }

    #[test]
    fn a_path_is_cut_before_it_is_decoded() {
        for (path, mount, expected) in [
            ("/", 0, Some("|")),
            ("/a%20b", 0, Some("a b")),
            ("/a/b.txt", 0, Some("a|b.txt")),
            ("/a/", 0, Some("a|")),
            ("/static", 1, Some("")),
            ("/static/", 1, Some("|")),
            ("/static/a", 1, Some("a")),
            ("//static/a", 1, Some("a")),
            ("/st%61tic/a", 1, Some("a")),
            ("/a%2Fb", 0, None),
            ("/%2e%2e/a", 0, None),
            ("/a/../b", 0, None),
            ("/./a", 0, None),
            ("/a//b", 0, None),
            ("//", 0, None),
            ("//evil/", 0, None),
            ("/static//a", 1, None),
            ("/a%00", 0, None),
            ("/%ff", 0, None),
            ("/...", 0, Some("...")),
            ("/a\\..\\b", 0, Some("a\\..\\b")),
            ("", 0, None),
            ("*", 0, None),
        ] {
            assert_eq!(parsed(path, mount).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn names_with_a_dot_before_them_are_hidden_but_for_one() {
        for (path, hidden) in [
            ("/.git/config", true),
            ("/a/.htpasswd", true),
            ("/%2Egit", true),
            ("/...", true),
            ("/.well-known/security.txt", false),
            ("/%2Ewell-known/x", false),
            ("/.well-known/.x", true),
            ("/a/.well-known/x", true),
            ("/a.b/c.d", false),
            ("/", false),
        ] {
            assert_eq!(FolderPath::parse(path, 0).unwrap().is_hidden(), hidden, "{path}");
        }
    }

    #[test]
    fn patterns_of_paths() {
        for (pattern, path, expected) in [
            ("/a.js", "/a.js", true),
            ("/a.js", "/a.js.map", false),
            ("*.js", "/deep/a.js", true),
            ("*.js", "/a.json", false),
            ("/assets/*", "/assets/a/b.css", true),
            ("/assets/*", "/assets", false),
            ("/assets/*.css", "/assets/a/b.css", true),
            ("/*/b*.css", "/a/b.css", true),
            ("/*/b*.css", "/b.css", false),
            ("*-*-*", "/a-b", false),
            ("*aab", "/aaab", true),
            ("*", "/", true),
            ("**", "/x", true),
            ("/a*a", "/a", false),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} and {path}");
        }
    }
}
