//! Signing keys, as whoever checks a signature asks for them.
