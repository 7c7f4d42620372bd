//! A saved state is taken back whole, and one that is cut or changed is an error at most.

use super::super::Engine;
use super::script::{BANK, Script};
use crate::domain::Kind;

/// An engine with something in every section.
fn evening() -> Script {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    script.refund(&original, 60);
    for _ in 0..3 {
        script.committed_debit(BANK, 1);
    }
    script.debit(BANK, 5);
    script.after_seconds(400).tick();
    script.payment(Kind::Payout);
    script.after_seconds(6).tick();
    script.debit(BANK, 7);
    script
}

fn saved(engine: &Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    engine.save(&mut bytes).expect("memory takes it");
    bytes
}

#[test]
fn what_was_saved_is_loaded_and_saved_the_same() {
    let script = evening();
    let bytes = saved(&script.engine);
    let loaded = Engine::load(&mut bytes.as_slice()).expect("it was just saved");
    assert_eq!(loaded.state_hash(), script.engine.state_hash());
    assert_eq!(loaded.state_mark(), script.engine.state_mark());
    assert_eq!(saved(&loaded), bytes);
}

#[test]
fn a_state_that_was_cut_anywhere_is_refused() {
    let bytes = saved(&evening().engine);
    for length in (0..bytes.len()).step_by(7) {
        assert!(Engine::load(&mut &bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn a_changed_byte_is_an_error_at_most_and_takes_no_memory_that_is_not_there() {
    let bytes = saved(&evening().engine);
    let (mut refused, mut taken) = (0, 0);
    for at in (0..bytes.len()).step_by(5) {
        let mut changed = bytes.clone();
        changed[at] ^= [0x01, 0x80, 0xFF][at % 3];
        match Engine::load(&mut changed.as_slice()) {
            // What the checksum is for: another amount is as good a state as any.
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken");
}
