//! For the server's owner: how Ambra does, whether its index is right, copies of it, and what it knows of an address.

pub mod address;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod snapshot;
pub mod status;
pub mod verify;
