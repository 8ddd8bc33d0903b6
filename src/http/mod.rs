//! What is served over HTTP.

pub(crate) mod pages;
