//! The sources as the rules see them: without what only looks like code, and cut into functions.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the library.
pub(crate) struct Source {
    /// Its path under `src/`.
    pub(crate) path: String,
    /// As it was written.
    pub(crate) text: String,
    /// Without comments and what is for tests alone.
    pub(crate) code: String,
    /// Without what is in strings either, so that each brace is one.
    pub(crate) bare: String,
}

/// A function with a body.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line that it begins in.
    pub(crate) line: usize,
    /// Its lines of code, from `fn` to the last brace.
    pub(crate) len: usize,
    /// What stands between its braces.
    pub(crate) body: String,
    /// Where `fn` stands in the bare text.
    pub(crate) start: usize,
}

/// A block that says what a type can do: `impl Type` or `impl Trait for Type`.
pub(crate) struct Block {
    /// The trait's name, if it is for one.
    pub(crate) of: Option<String>,
    /// The type's name, without its path and its parameters.
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (mut code, mut bare) = without_comments(text);
        blank_tests(&mut code, &mut bare);
        Self { path: path.to_owned(), text: text.to_owned(), code, bare }
    }

    /// The library's files, tests left out.
    pub(crate) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = rust_files(&root).into_iter().map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            Self::new(&name, &fs::read_to_string(&path).unwrap())
        });
        files.filter(|source| !is_test(&source.path)).collect()
    }

    /// The numbers and the code of the lines that have some.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim().is_empty())
    }

    /// The room that it stands in, or its own name at the top.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        // A type such as `fn(u8)` is none.
        let is_one = |start: usize, word| word == "fn" && self.bare[start + 2..].starts_with(' ');
        let starts = words(&self.bare).filter(|(start, word)| is_one(*start, *word));
        let starts = starts.map(|(start, _)| start);
        starts.filter_map(|start| self.function(start)).collect()
    }

    fn function(&self, start: usize) -> Option<Function> {
        let (_, name) = words(&self.bare[start + 2..]).next()?;
        let open = body_start(&self.bare, start)?;
        let end = closing(&self.bare, open);
        let body = self.code[open + 1..end].to_owned();
        let whole = &self.code[start..=end];
        let len = whole.lines().filter(|line| !line.trim().is_empty()).count();
        Some(Function { name: name.to_owned(), line: line_of(&self.bare, start), len, body, start })
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        // `impl Trait` in a signature opens no block.
        let is_item = |start: usize| {
            let before = self.bare[..start].trim_end();
            before.is_empty() || before.ends_with(['}', ';', ']', '{'])
        };
        let starts = words(&self.bare).filter(|(start, word)| *word == "impl" && is_item(*start));
        starts.filter_map(|(start, _)| self.block(start)).collect()
    }

    fn block(&self, start: usize) -> Option<Block> {
        let open = start + self.bare[start..].find('{')?;
        let head = without_parameters(&self.bare[start + 4..open]);
        let head = head.split(" where ").next()?.trim();
        let (of, name) = match head.split_once(" for ") {
            Some((of, name)) => (Some(last_word(of)), name),
            None => (None, head),
        };
        Some(Block { of, name: last_word(name), start, end: closing(&self.bare, open) })
    }
}

/// Whether a file under `src/` is for tests alone.
fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

/// Every file of Rust below a folder, but for what is built.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The words of a text (names, keywords, numbers), each with where it begins.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let start = rest + text[rest..].find(is_part)?;
        let len = text[start..].find(|c| !is_part(c)).unwrap_or(text.len() - start);
        rest = start + len;
        Some((start, &text[start..rest]))
    })
}

pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Where the body of the function at `start` opens; `None` for one that only has a signature.
fn body_start(bare: &str, start: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, c) in bare[start..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(start + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Where the brace at `open` closes.
fn closing(bare: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, c) in bare[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + offset,
            '}' => depth -= 1,
            _ => {}
        }
    }
    bare.len().saturating_sub(1)
}

/// A head of a block without what stands in angle brackets.
fn without_parameters(head: &str) -> String {
    let mut depth = 0_usize;
    let mut out = String::new();
    let mut last = ' ';
    for c in head.chars() {
        match c {
            '<' => depth += 1,
            '>' if last != '-' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(if c.is_whitespace() { ' ' } else { c }),
            _ => {}
        }
        last = c;
    }
    out
}

fn last_word(path: &str) -> String {
    words(path).last().map(|(_, word)| word.to_owned()).unwrap_or_default()
}

/// Blanks out whatever is compiled for tests alone.
fn blank_tests(code: &mut String, bare: &mut String) {
    for attribute in ["#[cfg(test)]", "#[cfg(all(repository, test))]"] {
        while let Some(start) = bare.find(attribute) {
            let after = start + attribute.len();
            let item_end = match body_start(bare, after) {
                Some(open) => closing(bare, open),
                None => after + bare[after..].find(';').unwrap_or(0),
            };
            // `use {..};` and `let x = {..};` end behind their brace.
            let end = if bare[item_end + 1..].starts_with(';') { item_end + 1 } else { item_end };
            for text in [&mut *code, &mut *bare] {
                let blank: String = text[start..=end]
                    .chars()
                    .map(|c| if c == '\n' { "\n".into() } else { " ".repeat(c.len_utf8()) })
                    .collect();
                text.replace_range(start..=end, &blank);
            }
        }
    }
}

/// The text without comments, and without what is in strings either; all that is left stands where it stood.
fn without_comments(text: &str) -> (String, String) {
    let mut code = String::with_capacity(text.len());
    let mut bare = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, len) = piece(rest, first, code.chars().next_back());
        let (this, after) = rest.split_at(len);
        for c in this.chars() {
            let blank = if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
            match kind {
                Piece::Comment => code.push_str(&blank),
                Piece::Text | Piece::Code => code.push(c),
            }
            match kind {
                Piece::Comment | Piece::Text => bare.push_str(&blank),
                Piece::Code => bare.push(c),
            }
        }
        rest = after;
    }
    (code, bare)
}

#[derive(Clone, Copy)]
enum Piece {
    Comment,
    /// A string or a character.
    Text,
    Code,
}

/// What `rest` begins with, and how long that is.
fn piece(rest: &str, first: char, before: Option<char>) -> (Piece, usize) {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        (Piece::Comment, rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        (Piece::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2))
    } else if first == '"' {
        (Piece::Text, string_len(rest))
    } else if !in_word && (rest.starts_with("r\"") || rest.starts_with("r#\"")) {
        let close = if rest.starts_with("r#") { "\"#" } else { "\"" };
        let opened = 1 + close.len();
        (
            Piece::Text,
            rest[opened..].find(close).map_or(rest.len(), |end| opened + end + close.len()),
        )
    } else if first == '\'' {
        character_len(rest).map_or((Piece::Code, 1), |len| (Piece::Text, len))
    } else {
        (Piece::Code, first.len_utf8())
    }
}

fn string_len(rest: &str) -> usize {
    let mut escaped = false;
    for (offset, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return offset + 1,
            _ => {}
        }
    }
    rest.len()
}

/// How long a character is with its quotes; `None` for the name of a lifetime.
fn character_len(rest: &str) -> Option<usize> {
    if rest[1..].starts_with('\\') {
        return rest[3..].find('\'').map(|end| 3 + end + 1);
    }
    let c = rest[1..].chars().next()?;
    rest[1 + c.len_utf8()..].starts_with('\'').then_some(c.len_utf8() + 2)
}

#[test]
fn what_only_looks_like_code_is_left_out() {
    let source = Source::new(
        "core/x.rs",
        "fn a<'x>() { '{'; b'\\''; \"}//\"; r#\"}\"}\"# } // fn c() {}\n\
         #[cfg(test)]\nfn b() {}\nimpl A<B> for c::D {}",
    );
    let names: Vec<_> = source.functions().into_iter().map(|function| function.name).collect();
    assert_eq!(names, ["a"]);
    let blocks = source.blocks();
    assert_eq!((blocks[0].of.as_deref(), blocks[0].name.as_str()), (Some("A"), "D"));
    assert_eq!(source.bare.len(), source.text.len());
}
