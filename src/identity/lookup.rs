//! Who is found by which address.
