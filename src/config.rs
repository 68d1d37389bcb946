//! Configuration: `Args` as typed, `Config` as meant.
