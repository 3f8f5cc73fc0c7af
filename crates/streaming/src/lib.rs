//! WebSocket and SPDY/3.1 channels for exec, attach and port-forward.
