//! The node: RPC, REST, block files, ZMQ.
pub mod rpc;
pub mod source;
