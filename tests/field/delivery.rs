//! What was accepted arrives, and who takes bytes is alive.
