//! Asking for a token at the identity server, and showing it.
