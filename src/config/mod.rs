//! Settings, the directory of participants, hardware profiles.
