//! Paths that are found by their text, without being taken apart.

/// Paths, and the numbers of what each is for.
#[derive(Debug, Default)]
pub(crate) struct SpelledOut(Vec<(Box<str>, usize)>);

impl SpelledOut {
    pub(crate) fn new(mut paths: Vec<(Box<str>, usize)>) -> Self {
        paths.sort();
        Self(paths)
    }

    #[inline]
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        let place = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(path));
        self.0.get(place.ok()?).map(|(_, number)| *number)
    }
}
