//! The mailbox, from the library's own files, and what it carries, as far as it looks at that.

#[path = "../../src/context/adoptions.rs"]
#[allow(dead_code, reason = "a part of it is looked at here")]
pub(crate) mod adoptions;
#[path = "../../src/context/mailbox.rs"]
#[allow(dead_code, unexpected_cfgs, reason = "a part of it is looked at here")]
pub(crate) mod mailbox;

pub(crate) mod commands {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Refused {
        Full,
        Stopped,
    }

    #[derive(Clone, Debug)]
    pub(crate) struct StopRequest;

    impl StopRequest {
        pub(crate) fn after(self, _earlier: Option<&Self>) -> Self {
            self
        }
    }
}

pub(crate) mod parcels {
    pub(crate) struct Parcel<A>(
        #[allow(dead_code, reason = "none is looked into")] pub(crate) Option<A>,
    );
}
