//! Makes a regtest chain that looks like mainnet, as a file for `bitcoind -loadblock`, and a record of
//! what a server must answer about it.
//!
//! The same arguments give the same chain. No output needs a signature, so a chain of millions of
//! transactions takes seconds.

mod assemble;
mod busy;
mod random;
mod record;
mod script;

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::mpsc::{self, Receiver, SyncSender},
    time::Instant,
};

use assemble::{Draft, Hash, compact_size, sha256d};
use clap::Parser;
use random::Random;
use record::{Follower, Line};
use script::{Kind, ScriptId, Scripts};

#[derive(Parser)]
#[command(name = "bench-chain")]
struct Args {
    /// How many transactions, coinbases not counted
    #[arg(long, default_value_t = busy::FULL)]
    txs: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the blocks
    #[arg(long)]
    blocks: PathBuf,
    /// Where to write the record (JSON lines)
    #[arg(long)]
    record: PathBuf,
}

/// Blocks before a coinbase may be spent.
const MATURITY: u32 = 100;
/// The first blocks have a coinbase only, which shares out the first coins: at least and at most so many.
const FIRST_COINS_PER_BLOCK: (u64, u64) = (100, 4_000);
/// Transactions in a block, at least and at most.
const TXS_PER_BLOCK: (u64, u64) = (1_200, 2_000);
/// A block that has so many bytes takes no more transactions: its weight is below 4,000,000 whatever they are.
const BLOCK_BYTES_MAX: usize = 960_000;
/// Blocks between halvings on regtest.
const HALVING: u32 = 150;
/// Of the scripts, about so many are recorded.
const SCRIPTS_RECORDED: u64 = 20_000;
const TXS_RECORDED: u64 = 30_000;
const COINS_RECORDED: usize = 60_000;

#[derive(Clone, Copy)]
struct Coin {
    txid: Hash,
    vout: u32,
    script: ScriptId,
    value: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let started = Instant::now();
    let file = BufWriter::with_capacity(1 << 20, File::create(&args.blocks)?);
    let (draft_to, drafts) = mpsc::sync_channel(4);
    let (coinbase_to, coinbases) = mpsc::channel();
    let assembler = std::thread::spawn(move || assemble::assemble(drafts, coinbase_to, file));
    let mut maker = Maker::new(&args, coinbases);
    maker.run(&draft_to);
    drop(draft_to);
    let written = assembler
        .join()
        .map_err(|_| "the thread that writes blocks failed")??;
    let chain = record::Chain {
        seed: args.seed,
        height: maker.height,
        tip: record::hex_reversed(&written.tip),
        transactions: maker.tx_number + u64::from(maker.height),
        inputs: maker.inputs,
        outputs: maker.outputs,
        scripts: u64::from(maker.scripts.count()),
        bytes: written.bytes,
    };
    println!("{chain:#?}");
    maker.write_record(&args, chain)?;
    println!("{:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

struct Maker {
    scripts: Scripts,
    random: Random,
    noise: Random,
    txs: u64,
    height: u32,
    tx_number: u64,
    inputs: u64,
    outputs: u64,
    /// Spendable since an earlier block.
    coins: Vec<Coin>,
    /// Made by this block.
    new_coins: Vec<Coin>,
    /// The busy scripts, and what they have to spend.
    busy: Vec<(ScriptId, Vec<Coin>)>,
    events: Vec<busy::Event>,
    next_event: usize,
    /// The script of each output so far: to draw from it is to prefer the ones that are used much.
    paid: Vec<ScriptId>,
    followers: HashMap<ScriptId, Follower>,
    follow_one_of: u64,
    sampled_txs: Vec<record::Tx>,
    coinbases: Receiver<Hash>,
    /// What the last coinbases pay.
    immature: VecDeque<(u32, Vec<(u64, ScriptId)>)>,
    body: Vec<u8>,
    witness: Vec<u8>,
}

impl Maker {
    fn new(args: &Args, coinbases: Receiver<Hash>) -> Maker {
        let mut random = Random::new(args.seed, u64::MAX);
        let mut scripts = Scripts::new(args.seed);
        let busy = (0..busy::script_count())
            .map(|_| (scripts.fresh(), Vec::new()))
            .collect();
        let events = busy::events(&mut random, args.txs);
        // About two scripts a transaction.
        let follow_one_of = (args.txs * 2 / SCRIPTS_RECORDED).max(1);
        Maker {
            scripts,
            random,
            noise: Random::new(args.seed, u64::MAX - 1),
            txs: args.txs,
            height: 0,
            tx_number: 0,
            inputs: 0,
            outputs: 0,
            coins: Vec::new(),
            new_coins: Vec::new(),
            busy,
            events,
            next_event: 0,
            paid: Vec::new(),
            followers: HashMap::new(),
            follow_one_of,
            sampled_txs: Vec::new(),
            coinbases,
            immature: VecDeque::new(),
            body: Vec::new(),
            witness: Vec::new(),
        }
    }

    fn run(&mut self, draft_to: &SyncSender<Draft>) {
        while self.tx_number < self.txs {
            self.height += 1;
            self.mature();
            let mut draft = Draft {
                height: self.height,
                bytes: Vec::with_capacity(1 << 20),
                ends: Vec::new(),
                txids: Vec::new(),
                payouts: Vec::new(),
            };
            let mut fees = 0;
            if self.height > MATURITY {
                let wanted = self.random.range(TXS_PER_BLOCK.0, TXS_PER_BLOCK.1);
                let end = (self.tx_number + wanted).min(self.txs);
                while self.tx_number < end && draft.bytes.len() < BLOCK_BYTES_MAX {
                    fees += self.add_tx(&mut draft);
                }
            }
            self.coins.append(&mut self.new_coins);
            self.pay_miner(&mut draft, fees);
            if draft_to.send(draft).is_err() {
                // The writer failed, and says why.
                return;
            }
        }
        // What is left is not of age at the tip, so it is not among the coins to be sent.
        let of_age = self.coins.len();
        while !self.immature.is_empty() {
            self.take_coinbase();
        }
        self.coins.truncate(of_age);
    }

    /// The coinbase that has come of age can be spent.
    fn mature(&mut self) {
        if self.height > MATURITY {
            self.take_coinbase();
        }
    }

    /// The oldest coinbase's coins.
    fn take_coinbase(&mut self) {
        let (Some((height, payouts)), Ok(txid)) =
            (self.immature.pop_front(), self.coinbases.recv())
        else {
            return;
        };
        for (vout, (value, script)) in (0..).zip(payouts) {
            // A coinbase's script has no other use before, so the order of its history is kept.
            self.follow_payment(script, txid, vout, value, height);
            self.coins.push(Coin {
                txid,
                vout,
                script,
                value,
            });
        }
    }

    fn pay_miner(&mut self, draft: &mut Draft, fees: u64) {
        let subsidy = 5_000_000_000u64
            .checked_shr(self.height / HALVING)
            .unwrap_or(0);
        let count = if self.height <= MATURITY {
            let (least, most) = FIRST_COINS_PER_BLOCK;
            (self.txs / 250).clamp(least, most)
        } else {
            1
        };
        let value = (subsidy + fees) / count;
        let payouts: Vec<(u64, ScriptId)> =
            (0..count).map(|_| (value, self.scripts.fresh())).collect();
        for &(value, id) in &payouts {
            let mut script = Vec::new();
            self.scripts.write_output(id, &mut script);
            draft.payouts.push((value, script));
        }
        self.outputs += count + 1;
        self.immature.push_back((self.height, payouts));
    }

    /// Adds a transaction and gives its fee.
    fn add_tx(&mut self, draft: &mut Draft) -> u64 {
        let mut busy_payments = Vec::new();
        let mut spent = Vec::new();
        while let Some(event) = self.events.get(self.next_event) {
            if event.tx > self.tx_number {
                break;
            }
            let (id, coins) = &mut self.busy[event.script];
            if !event.is_spend {
                busy_payments.push(*id);
            } else if !coins.is_empty() {
                let coin = self.random.index(coins.len());
                spent.push(coins.swap_remove(coin));
            }
            self.next_event += 1;
        }
        // With few coins about, they are split.
        let is_scarce = self.coins.len() < TXS_PER_BLOCK.1 as usize;
        let wanted = if is_scarce { 1 } else { self.input_count() };
        while spent.len() < wanted {
            spent.extend(self.take_coin());
        }
        let output_count = if is_scarce { 3 } else { self.output_count() };
        let output_count = output_count.max(busy_payments.len());
        let mut total: u64 = spent.iter().map(|coin| coin.value).sum();
        while total / (output_count as u64) < 2_000 {
            let Some(coin) = self.take_coin() else { break };
            total += coin.value;
            spent.push(coin);
        }
        let fee = self.random.range(200, 6_000).min(total / 20);

        self.body.clear();
        self.witness.clear();
        self.write_inputs(&spent);
        let outputs = self.write_outputs(&spent, &busy_payments, output_count, total - fee);
        self.body.extend_from_slice(&[0; 4]);
        let txid = sha256d(&self.body);
        self.inputs += spent.len() as u64;
        self.outputs += outputs.len() as u64;

        let has_witness = self.witness.iter().any(|&byte| byte != 0);
        if has_witness {
            let (head, rest) = self.body.split_at(4);
            let (middle, lock_time) = rest.split_at(rest.len() - 4);
            for part in [head, &[0, 1], middle, &self.witness, lock_time] {
                draft.bytes.extend_from_slice(part);
            }
        } else {
            draft.bytes.extend_from_slice(&self.body);
        }
        draft.ends.push(draft.bytes.len());
        draft.txids.push(txid);

        for coin in &spent {
            if let Some(follower) = self.followers.get_mut(&coin.script) {
                follower.spend(txid, self.height, coin.txid, coin.vout);
            }
        }
        for (vout, (script, value)) in (0..).zip(outputs) {
            let Some(script) = script else { continue };
            self.follow_payment(script, txid, vout, value, self.height);
            let coin = Coin {
                txid,
                vout,
                script,
                value,
            };
            match self.busy_number(script) {
                Some(number) => self.busy[number].1.push(coin),
                None if is_spendable(self.scripts.kind(script)) => self.new_coins.push(coin),
                None => {}
            }
        }
        if self.random.below(self.txs) < TXS_RECORDED {
            self.sampled_txs.push(record::Tx {
                txid: record::hex_reversed(&txid),
                height: self.height,
                position: draft.txids.len() as u32,
            });
        }
        self.tx_number += 1;
        fee
    }

    /// One coin to spend: of this block, a young one, or any.
    fn take_coin(&mut self) -> Option<Coin> {
        const YOUNG: usize = 30_000;
        if !self.new_coins.is_empty() && (self.coins.is_empty() || self.random.per_mille(100)) {
            let coin = self.random.index(self.new_coins.len());
            return Some(self.new_coins.swap_remove(coin));
        }
        if self.coins.is_empty() {
            return None;
        }
        let reach = if self.random.per_mille(550) {
            YOUNG.min(self.coins.len())
        } else {
            self.coins.len()
        };
        let coin = self.coins.len() - 1 - self.random.index(reach);
        Some(self.coins.swap_remove(coin))
    }

    fn input_count(&mut self) -> usize {
        let random = &mut self.random;
        let count = match random.below(1000) {
            0..620 => 1,
            620..815 => 2,
            815..895 => 3,
            895..965 => random.range(4, 6),
            965..995 => random.range(7, 20),
            _ => random.range(21, 100),
        };
        count as usize
    }

    fn output_count(&mut self) -> usize {
        let random = &mut self.random;
        let count = match random.below(1000) {
            0..190 => 1,
            190..825 => 2,
            825..905 => 3,
            905..965 => random.range(4, 6),
            965..996 => random.range(7, 20),
            _ => random.range(21, 100),
        };
        count as usize
    }

    fn write_inputs(&mut self, spent: &[Coin]) {
        self.body.extend_from_slice(&2u32.to_le_bytes());
        compact_size(spent.len(), &mut self.body);
        for coin in spent {
            self.body.extend_from_slice(&coin.txid);
            self.body.extend_from_slice(&coin.vout.to_le_bytes());
            self.scripts.write_input(
                coin.script,
                &mut self.noise,
                &mut self.body,
                &mut self.witness,
            );
            self.body.extend_from_slice(&0xffff_fffdu32.to_le_bytes());
        }
    }

    /// Writes the outputs and gives each one's script (none for OP_RETURN) and value.
    fn write_outputs(
        &mut self,
        spent: &[Coin],
        busy_payments: &[ScriptId],
        count: usize,
        mut value_left: u64,
    ) -> Vec<(Option<ScriptId>, u64)> {
        let mut outputs = Vec::with_capacity(count);
        compact_size(count, &mut self.body);
        for number in 0..count {
            let is_last = number + 1 == count;
            let script = match busy_payments.get(number) {
                Some(&script) => Some(script),
                None => self.output_script(spent, is_last),
            };
            let value = if script.is_none() {
                0
            } else if is_last {
                value_left
            } else {
                let mean = value_left / (count - number) as u64;
                mean / 4 + self.random.below(mean * 3 / 2 + 1)
            };
            value_left -= value;
            self.body.extend_from_slice(&value.to_le_bytes());
            let length_at = self.body.len();
            self.body.push(0);
            match script {
                Some(script) => self.scripts.write_output(script, &mut self.body),
                None => {
                    let length = self.random.range(20, 75) as usize;
                    self.body.extend_from_slice(&[0x6a, length as u8]);
                    self.noise.bytes(length, &mut self.body);
                }
            }
            self.body[length_at] = (self.body.len() - length_at - 1) as u8;
            outputs.push((script, value));
        }
        outputs
    }

    /// Where an output goes: OP_RETURN, a script nobody spends, back to the sender, a known script, a new one.
    fn output_script(&mut self, spent: &[Coin], is_last: bool) -> Option<ScriptId> {
        let draw = self.random.below(1000);
        if is_last {
            // Change, some of it to where the coins were.
            let sender = spent[0].script;
            if draw < 220 && self.busy_number(sender).is_none() {
                return Some(sender);
            }
        } else if draw < 75 {
            return None;
        } else if draw < 115 {
            return Some(self.scripts.fresh_unspendable());
        } else if draw < 480 && !self.paid.is_empty() {
            let script = self.paid[self.random.index(self.paid.len())];
            self.paid.push(script);
            return Some(script);
        }
        // One in a hundred can be spent through a mempool too, for the measurements at the tip.
        let script = if draw >= 990 {
            self.scripts.fresh_sendable()
        } else {
            self.scripts.fresh()
        };
        self.paid.push(script);
        Some(script)
    }

    fn busy_number(&self, script: ScriptId) -> Option<usize> {
        // They were the first to get numbers, from 1 on.
        (script as usize)
            .checked_sub(1)
            .filter(|&number| number < self.busy.len())
    }

    fn follow_payment(&mut self, script: ScriptId, txid: Hash, vout: u32, value: u64, height: u32) {
        let is_followed = self.busy_number(script).is_some()
            || Random::new(self.follow_one_of, u64::from(script)).below(self.follow_one_of) == 0;
        if !is_followed {
            return;
        }
        let scripts = &mut self.scripts;
        self.followers
            .entry(script)
            .or_insert_with(|| {
                let mut bytes = Vec::new();
                scripts.write_output(script, &mut bytes);
                Follower::new(bytes)
            })
            .pay(txid, vout, value, height);
    }

    fn write_record(&mut self, args: &Args, chain: record::Chain) -> Result<(), Box<dyn Error>> {
        let mut file = BufWriter::new(File::create(&args.record)?);
        record::write_line(&mut file, &Line::Chain(chain))?;
        let mut followers: Vec<(ScriptId, Follower)> = self.followers.drain().collect();
        followers.sort_unstable_by_key(|&(id, _)| id);
        for (_, follower) in followers {
            record::write_line(&mut file, &Line::Script(follower.finish()))?;
        }
        for tx in self.sampled_txs.drain(..) {
            record::write_line(&mut file, &Line::Tx(tx))?;
        }
        let scripts = &self.scripts;
        let sendable = self
            .coins
            .iter()
            .filter(|coin| scripts.kind(coin.script) == Kind::WitnessScriptHash)
            .filter(|coin| coin.value > 20_000)
            .take(COINS_RECORDED);
        for coin in sendable {
            let line = Line::Coin(record::Coin {
                txid: record::hex_reversed(&coin.txid),
                vout: coin.vout,
                value: coin.value,
                witness_script: record::hex(&scripts.witness_script(coin.script)),
            });
            record::write_line(&mut file, &line)?;
        }
        file.flush()?;
        Ok(())
    }
}

fn is_spendable(kind: Kind) -> bool {
    !matches!(kind, Kind::KeyHash | Kind::WitnessKeyHash | Kind::Taproot)
}
