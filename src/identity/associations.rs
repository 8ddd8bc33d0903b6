//! Associations: made, ended, and shown.
