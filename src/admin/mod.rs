//! Empty so far: the status page, metrics and health checks will stand here.
