//! Links: sessions, and the agent that owns the sockets.
