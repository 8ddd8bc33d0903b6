//! Homeservers are told of associations, in the background.
