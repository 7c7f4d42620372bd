use super::*;

#[test]
fn a_quiet_seed_runs_to_its_end() {
    rehearse(1).unwrap_or_else(|failure| panic!("{failure}"));
}
