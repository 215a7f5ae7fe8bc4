//! HTTP on the same port, by RFC 9110 and 9112.
