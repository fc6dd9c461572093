//! The data path through real sockets: proxies, applications and callers in one process, and the real binary where a
//! process matters.

mod access_log;
mod age;
mod balancing;
mod bring_down;
mod config_errors;
mod embedded;
mod failures;
mod filters;
mod frames;
mod framing_matrix;
mod grpc;
mod hand_over;
mod http1;
mod http2_pool;
mod hygiene;
mod identity;
mod keep_alive;
mod listeners;
mod mutual_tls;
mod names;
mod outcomes;
mod probes;
mod process;
mod proxy_protocol;
mod recorder;
mod reload;
mod reload_load;
mod remote_filters;
mod rules;
mod services;
mod streams;
mod support;
mod tcp;
mod translation;
mod websocket;
