//! For the one who runs it: checks of the index. The status page, metrics and health checks will stand here.

pub mod verify;
