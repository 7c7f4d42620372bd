//! The auditor: recomputes positions and windows from the raw journal, sharing no code with the engine.
