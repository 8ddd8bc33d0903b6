//! Tests of the whole, through its public face.

mod smtp;
mod support;
