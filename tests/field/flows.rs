//! Flows: every byte is paid for, every loss counted, nobody waits.
