//! Too many at once, and a system that refuses.
