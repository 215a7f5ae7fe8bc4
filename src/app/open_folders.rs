//! The folders that requests have opened: once for all requests that came together.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;

/// All that are open. None is between two turns: it may be replaced, or its disk be taken away.
#[derive(Debug, Default)]
pub(crate) struct OpenFolders {
    /// By their numbers.
    open: RefCell<Vec<(u32, Rc<OwnedFd>)>>,
    next: Cell<u32>,
}

impl OpenFolders {
    /// The number of a further folder.
    pub(super) fn number(&self) -> u32 {
        self.next.replace(self.next.get().wrapping_add(1))
    }

    /// The folder of that number, opened unless it is.
    pub(super) fn folder(
        &self,
        number: u32,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Rc<OwnedFd>, Errno> {
        let mut folders = self.open.borrow_mut();
        if let Some((_, fd)) = folders.iter().find(|(known, _)| *known == number) {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(open()?);
        folders.push((number, Rc::clone(&fd)));
        Ok(fd)
    }

    /// What comes from here on opens them anew.
    #[inline]
    pub(crate) fn close(&self) {
        if !self.open.borrow().is_empty() {
            self.close_all();
        }
    }

    #[cold]
    fn close_all(&self) {
        self.open.borrow_mut().clear();
    }
}
