//! The switch: puts the agents on cores as the profile says.
