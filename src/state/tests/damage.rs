//! Blocks whose bytes changed after they were indexed. What is told is right, or nothing is told.

use super::*;

const SEED: u64 = 31;

/// A chain of small blocks; nothing is known of any script.
fn world() -> World {
    // So that everything is read each time.
    let mut world = World::new(SEED, 4, limits(0));
    world.step(0, &[1, 3, 2, 4, 1], 0, |_| ());
    world
}

fn len(world: &World, height: Height) -> usize {
    serialize(&world.chain.blocks[height as usize]).len()
}

/// All questions about a script, and whether each was answered; what was, is right.
fn right_or_refused(world: &World, script: &ScriptHash) -> usize {
    let (view, ask) = (world.state.view(), Ask::default());
    let expected = world.expected(script);
    let is_refused = |error: QueryError| assert!(matches!(error, QueryError::Unavailable(_)));
    let mut refused = 0;
    let mut told = |is_right: Result<bool, QueryError>| match is_right {
        Ok(is_right) => assert!(is_right),
        Err(error) => {
            is_refused(error);
            refused += 1;
        }
    };
    told(
        view.status(script, &ask)
            .map(|status| status == expected.status),
    );
    told(
        view.history(script, &ask)
            .map(|history| history == expected.history),
    );
    told(
        view.balance(script, &ask)
            .map(|balance| balance == expected.balance),
    );
    told(
        view.unspent(script, &ask)
            .map(|unspent| unspent == expected.unspent),
    );
    refused
}

/// The same of all transactions of a block, and of their proofs.
fn block_is_right_or_refused(world: &World, height: Height) -> usize {
    let view = world.state.view();
    let block = &world.chain.blocks[height as usize];
    let leaves = block
        .txdata
        .iter()
        .map(|tx| tx.compute_txid().to_byte_array())
        .collect::<Vec<_>>();
    let mut refused = 0;
    for (position, tx) in block.txdata.iter().enumerate() {
        let txid = tx.compute_txid();
        let proof = merkle_branch(&leaves, position);
        match view.merkle_proof(&txid, height) {
            Ok(told) => assert_eq!(told, proof),
            Err(_) => refused += 1,
        }
        match view.txid_at(height, position as u32) {
            Ok(told) => assert_eq!(told, proof.map(|proof| (txid, proof))),
            Err(_) => refused += 1,
        }
        match view.transaction(&txid) {
            Ok(told) => assert_eq!(told.unwrap().bytes, serialize(tx)),
            Err(_) => refused += 1,
        }
    }
    refused
}

/// Spoils bytes of all blocks, one at a time; says how many answers were refused. Where the check passes by chance
/// (once in 256), nothing can be seen.
fn spoil_each(world: &World) -> usize {
    const STEP: usize = 11;
    let scripts = world.chain.hashes();
    let (mut refused, mut tried, mut unseen) = (0, 0, 0);
    for height in 1..world.chain.blocks.len() as Height {
        for at in (81..len(world, height)).step_by(STEP) {
            world.archive.spoil(height, at..at + 1);
            tried += 1;
            if world.archive.passes_by_chance(height, at) {
                unseen += 1;
            } else {
                let scripts = scripts.iter();
                refused += scripts
                    .map(|script| right_or_refused(world, script))
                    .sum::<usize>();
                refused += block_is_right_or_refused(world, height);
            }
            world.archive.restore();
        }
    }
    println!("{tried} bytes spoiled, {unseen} unseen, {refused} answers refused");
    assert!(
        tried > 100 && unseen * 50 < tried,
        "{unseen} of {tried} unseen"
    );
    refused
}

#[test]
fn a_byte_that_changed_in_a_block_is_read_from_the_node_where_that_has_it() {
    let world = world();
    world.archive.copy_for_node();
    assert_eq!(spoil_each(&world), 0);
}

#[test]
fn a_byte_that_changed_at_the_node_too_is_an_error_and_never_a_wrong_answer() {
    let world = world();
    world.archive.copy_for_node();
    world.archive.node_is_damaged_too(true);
    let refused = spoil_each(&world);
    assert!(refused > 1000, "only {refused} answers were refused");
}

#[test]
fn a_long_history_is_healed_block_by_block() {
    let mut world = World::new(SEED, 1, limits(PLENTY));
    world.step(0, &[40; 30], 0, |_| ());
    world.archive.copy_for_node();
    let script = world.chain.hashes()[0];
    for height in 5..25 {
        let len = len(&world, height);
        world.archive.spoil(height, len / 2..len / 2 + 40);
    }
    world.check(&script);
}
