//! What is kept of scripts, and what goes.

use super::*;
use crate::state::CacheFigures;

/// A world of so many scripts, what all that is known of them takes, and a state beside the world's own that may
/// keep only so much of it.
fn kept_part(scripts: usize, sizes: &[usize], part: impl Fn(usize) -> usize) -> (World, State) {
    let mut world = World::new(21, scripts, limits(PLENTY));
    world.step(0, sizes, 0, |_| ());
    for script in world.chain.hashes() {
        world.check(&script);
    }
    let bytes = world.state.cache_figures().bytes;
    let genesis = serialize(&world.chain.blocks[0].header).try_into().unwrap();
    let archive = Box::new(world.archive.clone());
    let state = State::over(archive, genesis, limits(part(bytes))).unwrap();
    (world, state)
}

fn ask(state: &State, script: &ScriptHash) {
    state.view().status(script, &Ask::default()).unwrap();
    let CacheFigures {
        bytes, bytes_max, ..
    } = state.cache_figures();
    assert!(bytes <= bytes_max, "{bytes} bytes of {bytes_max} are kept");
}

#[test]
fn a_script_that_needs_more_than_half_of_the_bound_is_answered_and_not_kept() {
    for (bound, is_kept) in [(3, true), (2, false)] {
        // One script takes it all; a third as much again, or the double, may be kept.
        let (world, state) = kept_part(1, &[50; 4], |bytes| match bound {
            3 => 3 * bytes,
            _ => bytes * 3 / 2,
        });
        let script = world.chain.hashes()[0];
        ask(&state, &script);
        assert_eq!(state.view().is_in_memory(&script), is_kept);
        assert_eq!(state.cache_figures().bytes > 0, is_kept);
    }
}

#[test]
fn the_bound_holds_and_what_nobody_is_subscribed_to_goes_first() {
    let (world, state) = kept_part(40, &[12; 8], |bytes| bytes / 3);
    let scripts = world.chain.hashes();
    let subscriber = state.subscriptions().subscriber();
    let subscribed = &scripts[..5];
    for script in subscribed {
        subscriber.subscribe(*script);
        ask(&state, script);
    }
    for _ in 0..3 {
        scripts[5..].iter().for_each(|script| ask(&state, script));
    }
    let is_kept = |script: &&ScriptHash| state.view().is_in_memory(script);
    assert_eq!(subscribed.iter().filter(is_kept).count(), 5);
    let others = scripts[5..].iter().filter(is_kept).count();
    assert!((1..30).contains(&others), "{others} others are kept");
}

#[test]
fn the_bound_holds_where_someone_is_subscribed_to_everything() {
    let (world, state) = kept_part(40, &[12; 8], |bytes| bytes / 3);
    let subscriber = state.subscriptions().subscriber();
    for script in world.chain.hashes() {
        subscriber.subscribe(script);
        ask(&state, &script);
    }
}
