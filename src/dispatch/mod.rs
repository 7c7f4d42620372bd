//! Dispatch: which link, when, and what could not be sent.
