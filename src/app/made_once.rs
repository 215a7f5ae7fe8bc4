//! What makes something once, in a value that can be cloned and compared.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Clones of it make one thing: the first who takes it has it.
pub(super) struct MadeOnce<T>(Rc<RefCell<Option<T>>>);

impl<T> MadeOnce<T> {
    pub(super) fn new(make: T) -> Self {
        Self(Rc::new(RefCell::new(Some(make))))
    }

    pub(super) fn take(&self) -> Option<T> {
        self.0.borrow_mut().take()
    }
}

impl<T> Clone for MadeOnce<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> fmt::Debug for MadeOnce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MadeOnce")
    }
}

impl<T> PartialEq for MadeOnce<T> {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for MadeOnce<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_one_and_the_first_has_it() {
        let (one, other) = (MadeOnce::new("it"), MadeOnce::new("it"));
        let clone = one.clone();
        assert!(one == clone && one != other);
        assert_eq!((clone.take(), one.take(), other.take()), (Some("it"), None, Some("it")));
    }
}
