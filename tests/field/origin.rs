//! Who may connect, and who a client is behind a proxy.
