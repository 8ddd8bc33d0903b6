//! Invitations of people who have no user id yet.
