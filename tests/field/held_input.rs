//! Input that is held, and peers that are not read.
