//! A backend for tests: a small world that a test changes as it likes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use bitcoin::{BlockHash, OutPoint, ScriptBuf, TxOut, Txid, hashes::Hash};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    chain::{
        Balance, Confirmed, HEADER_LEN, HeaderBytes, Height, History, MempoolEntry, MerkleProof,
        ScriptHash, Status, Unspent, block_hash, merkle_branch, status_of,
    },
    daemon::rpc::RpcError,
    state::{Ask, Changed, FoundTx, OutpointStatus, QueryError, RecentTx, Tip},
};

use super::{
    Stats,
    backend::{Answers, Backend, Change, Listener, Node},
};

/// What fails, if something does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    Syncing,
    Unavailable,
}

/// What a view of it shows.
#[derive(Clone, Default)]
pub struct World {
    pub headers: Vec<HeaderBytes>,
    pub histories: HashMap<ScriptHash, History>,
    pub unspent: HashMap<ScriptHash, Vec<Unspent>>,
    pub txs: HashMap<Txid, FoundTx>,
    pub outputs: HashMap<OutPoint, (TxOut, Height)>,
    pub spenders: HashMap<OutPoint, (Txid, i64)>,
    /// Scripts that take a disk.
    pub on_disk: HashSet<ScriptHash>,
    /// Questions that may read far wait at the gate, from memory too.
    pub far_waits: bool,
    pub fault: Fault,
    pub node_is_away: bool,
    /// The node takes no transaction.
    pub node_refuses: bool,
}

/// The world, its listeners, and a gate at which questions to the disk can be held.
#[derive(Clone, Default)]
pub struct Fake(Arc<Inside>);

#[derive(Default)]
struct Inside {
    world: Mutex<World>,
    listeners: Mutex<Vec<Arc<FakeListener>>>,
    gate: Gate,
    stats: Stats,
}

#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

pub fn header(height: Height, salt: u8) -> HeaderBytes {
    let mut header = [salt; HEADER_LEN];
    header[..4].copy_from_slice(&2u32.to_le_bytes());
    header[68..72].copy_from_slice(&(1_300_000_000 + height).to_le_bytes());
    header
}

pub fn txid(number: u8) -> Txid {
    Txid::from_byte_array([number; 32])
}

pub fn script(number: u8) -> ScriptHash {
    ScriptHash::new(&locking(number))
}

pub fn locking(number: u8) -> Vec<u8> {
    let mut script = vec![0x00, 0x14];
    script.extend_from_slice(&[number; 20]);
    script
}

impl Fake {
    /// Blocks 0 to 9; script 1 has two confirmed transactions and two in the mempool.
    pub fn new() -> Fake {
        let fake = Fake::default();
        fake.change(|world| {
            world.headers = (0..10).map(|height| header(height, 1)).collect();
            let history = History {
                confirmed: Arc::new(vec![
                    Confirmed {
                        txid: txid(1),
                        height: 3,
                    },
                    Confirmed {
                        txid: txid(2),
                        height: 5,
                    },
                ]),
                mempool: vec![
                    MempoolEntry {
                        txid: txid(3),
                        fee: 200,
                        has_unconfirmed_inputs: false,
                    },
                    MempoolEntry {
                        txid: txid(4),
                        fee: 300,
                        has_unconfirmed_inputs: true,
                    },
                ],
            };
            world.histories.insert(script(1), history);
            let coin = |number, height| Unspent {
                txid: txid(number),
                vout: 1,
                value: 5000,
                height,
            };
            world
                .unspent
                .insert(script(1), vec![coin(2, 5), coin(4, 0)]);
            for (number, confirmed) in [(1, Some((3, 0))), (2, Some((5, 1))), (3, None), (4, None)]
            {
                let bytes = vec![number; 10];
                world.txs.insert(txid(number), FoundTx { bytes, confirmed });
            }
            let output = TxOut {
                value: bitcoin::Amount::from_sat(5000),
                script_pubkey: ScriptBuf::from_bytes(locking(1)),
            };
            let outpoint = |number| OutPoint {
                txid: txid(number),
                vout: 1,
            };
            world.outputs.insert(outpoint(1), (output.clone(), 3));
            world.outputs.insert(outpoint(2), (output.clone(), 5));
            world.outputs.insert(outpoint(4), (output, 0));
            world.spenders.insert(outpoint(1), (txid(2), 5));
        });
        fake
    }

    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.0.world.lock().unwrap());
    }

    pub fn world(&self) -> World {
        self.0.world.lock().unwrap().clone()
    }

    /// Adds an unconfirmed transaction to a script's history, without telling.
    pub fn pay(&self, script: ScriptHash, number: u8) {
        self.change(|world| {
            let entry = MempoolEntry {
                txid: txid(number),
                fee: 1,
                has_unconfirmed_inputs: false,
            };
            world
                .histories
                .entry(script)
                .or_default()
                .mempool
                .push(entry);
        });
    }

    pub fn status(&self, script: &ScriptHash) -> Option<Status> {
        self.world().histories.get(script).and_then(status_of)
    }

    /// Tells all listeners.
    pub fn tell(&self, tip: bool, scripts: &[ScriptHash], outpoints: &[OutPoint]) {
        for listener in self.0.listeners.lock().unwrap().iter() {
            listener.tell(tip, scripts, outpoints);
        }
    }

    pub fn listens(&self, script: &ScriptHash) -> bool {
        let listeners = self.0.listeners.lock().unwrap();
        listeners
            .iter()
            .any(|l| l.inside.lock().unwrap().scripts.contains(script))
    }

    /// Questions to the disk and the node wait, until [`Fake::open_gate`].
    pub fn shut_gate(&self) {
        *self.0.gate.is_shut.lock().unwrap() = true;
    }

    pub fn open_gate(&self) {
        *self.0.gate.is_shut.lock().unwrap() = false;
        self.0.gate.opened.notify_all();
    }

    fn pass_gate(&self, ask: Option<&Ask>) -> Result<(), QueryError> {
        let mut is_shut = self.0.gate.is_shut.lock().unwrap();
        while *is_shut {
            let cancelled = ask.and_then(|ask| ask.cancelled.as_ref());
            if cancelled.is_some_and(|flag| flag.load(std::sync::atomic::Ordering::Relaxed)) {
                return Err(QueryError::Cancelled);
            }
            let waited = self
                .0
                .gate
                .opened
                .wait_timeout(is_shut, Duration::from_millis(10));
            is_shut = waited.unwrap().0;
        }
        Ok(())
    }
}

impl Backend for Fake {
    fn answers(&self) -> Arc<dyn Answers> {
        Arc::new(FakeView {
            fake: self.clone(),
            world: self.world(),
        })
    }
    fn listener(&self) -> Arc<dyn Listener> {
        let listener = Arc::new(FakeListener::default());
        self.0.listeners.lock().unwrap().push(listener.clone());
        listener
    }
    fn node(&self) -> &dyn Node {
        self
    }
    fn stats(&self) -> &Stats {
        &self.0.stats
    }
}

struct FakeView {
    fake: Fake,
    world: World,
}

impl FakeView {
    fn check(&self) -> Result<(), QueryError> {
        match self.world.fault {
            Fault::None => Ok(()),
            Fault::Syncing => Err(QueryError::Syncing("indexing: 61 % done".to_owned())),
            Fault::Unavailable => Err(QueryError::Unavailable("read: error 5".to_owned())),
        }
    }

    fn ask(&self, script: &ScriptHash, ask: &Ask) -> Result<History, QueryError> {
        let is_far = ask.list_max.is_none() && ask.rows_max.is_none();
        if self.world.on_disk.contains(script) || (is_far && self.world.far_waits) {
            self.fake.pass_gate(Some(ask))?;
        }
        self.check()?;
        let history = self
            .world
            .histories
            .get(script)
            .cloned()
            .unwrap_or_default();
        let entries = history.confirmed.len() + history.mempool.len();
        let is_read = self.world.on_disk.contains(script);
        match ask.max_history {
            Some(limit) if entries > limit => Err(QueryError::TooLarge { limit }),
            _ if is_read && ask.rows_max.is_some_and(|max| entries > max) => Err(QueryError::Long),
            _ if ask.list_max.is_some_and(|max| entries > max) => Err(QueryError::Long),
            _ => Ok(history),
        }
    }
}

impl Answers for FakeView {
    fn tip(&self) -> Tip {
        let header = *self.world.headers.last().unwrap();
        Tip {
            height: self.world.headers.len() as Height - 1,
            hash: block_hash(&header),
            header,
        }
    }
    fn genesis(&self) -> BlockHash {
        block_hash(&self.world.headers[0])
    }
    fn progress(&self) -> Option<String> {
        (self.world.fault == Fault::Syncing).then(|| "indexing: 61 % done".to_owned())
    }
    fn header(&self, height: Height) -> Result<Option<HeaderBytes>, QueryError> {
        Ok(self.world.headers.get(height as usize).copied())
    }
    fn headers(&self, start: Height, count: u32) -> Result<Vec<u8>, QueryError> {
        let headers = self.world.headers.iter().skip(start as usize);
        Ok(headers.take(count as usize).flatten().copied().collect())
    }
    fn header_proof(&self, height: Height, cp_height: Height) -> Result<MerkleProof, QueryError> {
        let leaves: Vec<_> = self.world.headers[..=cp_height as usize]
            .iter()
            .map(|header| block_hash(header).to_byte_array())
            .collect();
        Ok(merkle_branch(&leaves, height as usize).unwrap())
    }
    fn is_in_memory(&self, script: &ScriptHash) -> bool {
        !self.world.on_disk.contains(script)
    }
    fn status(&self, script: &ScriptHash, ask: &Ask) -> Result<Option<Status>, QueryError> {
        self.ask(script, ask).map(|history| status_of(&history))
    }
    fn history(&self, script: &ScriptHash, ask: &Ask) -> Result<History, QueryError> {
        self.ask(script, ask)
    }
    fn mempool(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<MempoolEntry>, QueryError> {
        self.ask(script, ask).map(|history| history.mempool)
    }
    fn balance(&self, script: &ScriptHash, ask: &Ask) -> Result<Balance, QueryError> {
        self.ask(script, ask)?;
        Ok(Balance {
            confirmed: 7000,
            unconfirmed: -2000,
        })
    }
    fn unspent(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<Unspent>, QueryError> {
        self.ask(script, ask)?;
        Ok(self.world.unspent.get(script).cloned().unwrap_or_default())
    }
    fn transaction(&self, txid: &Txid) -> Result<Option<FoundTx>, QueryError> {
        self.fake.pass_gate(None)?;
        self.check()?;
        Ok(self.world.txs.get(txid).cloned())
    }
    fn position(&self, txid: &Txid) -> Result<Option<(Height, u32)>, QueryError> {
        Ok(self.transaction(txid)?.and_then(|found| found.confirmed))
    }
    fn merkle_proof(&self, txid: &Txid, height: Height) -> Result<Option<MerkleProof>, QueryError> {
        let Some((at, position)) = self.position(txid)? else {
            return Ok(None);
        };
        let proof = MerkleProof {
            position,
            branch: vec![[7; 32]],
            root: [8; 32],
        };
        Ok((at == height).then_some(proof))
    }
    fn txid_at(
        &self,
        height: Height,
        position: u32,
    ) -> Result<Option<(Txid, MerkleProof)>, QueryError> {
        self.check()?;
        let found = self
            .world
            .txs
            .iter()
            .find(|(_, tx)| tx.confirmed == Some((height, position)));
        let Some((txid, _)) = found else {
            return Ok(None);
        };
        Ok(self.merkle_proof(txid, height)?.map(|proof| (*txid, proof)))
    }
    fn output(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, Height)>, QueryError> {
        self.check()?;
        Ok(self.world.outputs.get(outpoint).cloned())
    }
    fn outpoint_status(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        _: &Ask,
    ) -> Result<OutpointStatus, QueryError> {
        self.check()?;
        let Some((output, height)) = self.world.outputs.get(outpoint) else {
            return Ok(OutpointStatus::default());
        };
        if ScriptHash::new(output.script_pubkey.as_bytes()) != *script {
            return Ok(OutpointStatus::default());
        }
        Ok(OutpointStatus {
            funder_height: Some(i64::from(*height)),
            spender: self.world.spenders.get(outpoint).copied(),
        })
    }
    fn fee_histogram(&self) -> Arc<Vec<(f64, u64)>> {
        Arc::new(vec![(12.5, 1000), (1.0, 2000)])
    }
    fn recent(&self) -> Vec<RecentTx> {
        vec![RecentTx {
            txid: txid(3),
            fee: 200,
            vsize: 110,
        }]
    }
}

#[derive(Default)]
struct FakeListener {
    inside: Mutex<Listening>,
    told: Notify,
}

#[derive(Default)]
struct Listening {
    tip: bool,
    scripts: HashSet<ScriptHash>,
    outpoints: HashSet<OutPoint>,
    changed: Changed,
}

impl FakeListener {
    fn tell(&self, tip: bool, scripts: &[ScriptHash], outpoints: &[OutPoint]) {
        let mut inside = self.inside.lock().unwrap();
        inside.changed.tip |= tip && inside.tip;
        for script in scripts {
            if inside.scripts.contains(script) && !inside.changed.scripts.contains(script) {
                inside.changed.scripts.push(*script);
            }
        }
        for outpoint in outpoints {
            if inside.outpoints.contains(outpoint) {
                inside.changed.outpoints.push(*outpoint);
            }
        }
        if inside.has_changed() {
            self.told.notify_one();
        }
    }

    fn inside(&self) -> MutexGuard<'_, Listening> {
        self.inside.lock().unwrap()
    }
}

impl Listening {
    fn has_changed(&self) -> bool {
        self.changed != Changed::default()
    }
}

impl Listener for FakeListener {
    fn subscribe(&self, script: ScriptHash) {
        self.inside().scripts.insert(script);
    }
    fn unsubscribe(&self, script: &ScriptHash) -> bool {
        self.inside().scripts.remove(script)
    }
    fn watch(&self, outpoint: OutPoint) {
        self.inside().outpoints.insert(outpoint);
    }
    fn unwatch(&self, outpoint: &OutPoint) -> bool {
        self.inside().outpoints.remove(outpoint)
    }
    fn watch_tip(&self) {
        self.inside().tip = true;
    }
    fn changed(&self) -> Change<'_> {
        Box::pin(async {
            loop {
                {
                    let mut inside = self.inside();
                    if inside.has_changed() {
                        return std::mem::take(&mut inside.changed);
                    }
                }
                self.told.notified().await;
            }
        })
    }
}

impl Fake {
    fn node_answers(&self, answer: Value) -> Result<Value, RpcError> {
        if self.world().node_is_away {
            return Err(RpcError::Unavailable("connection refused".to_owned()));
        }
        if self.world().node_refuses {
            return Err(RpcError::Refused {
                code: -26,
                message: "min relay fee not met".to_owned(),
            });
        }
        Ok(answer)
    }
}

impl Node for Fake {
    fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcError> {
        assert_eq!(method, "getblockheader");
        let world = self.world();
        let height = world
            .headers
            .iter()
            .position(|header| Value::String(block_hash(header).to_string()) == params[0]);
        match height {
            Some(height) => self.node_answers(json!({ "height": height })),
            None => Err(RpcError::Refused {
                code: -5,
                message: "Block not found".to_owned(),
            }),
        }
    }
    fn broadcast(&self, _: &str) -> Result<String, RpcError> {
        self.node_answers(Value::Null).map(|_| txid(9).to_string())
    }
    fn submit_package(&self, raw_txs: &[String]) -> Result<Value, RpcError> {
        self.node_answers(match raw_txs.len() {
            1 => json!({ "package_msg": "success", "tx-results": { "w": { "txid": "t" } } }),
            _ => json!({ "package_msg": "transaction failed", "tx-results": { "w": { "txid": "t", "error": "too cheap" } } }),
        })
    }
    fn test_mempool_accept(&self, _: &[String]) -> Result<Value, RpcError> {
        self.node_answers(json!([
            { "txid": "a", "wtxid": "b", "allowed": true, "vsize": 110 },
            { "txid": "c", "wtxid": "d", "allowed": false, "reject-reason": "why", "reject-details": "why, in full" },
        ]))
    }
    fn estimate_fee(&self, blocks: u16, mode: Option<&str>) -> Result<Option<f64>, RpcError> {
        assert!((1..=1008).contains(&blocks));
        assert!(mode.is_none_or(|mode| mode == "ECONOMICAL"));
        self.node_answers(Value::Null)
            .map(|_| (blocks > 1).then_some(0.0001))
    }
    fn mempool_info(&self) -> Result<Value, RpcError> {
        self.node_answers(json!({ "size": 1, "mempoolminfee": 0.00001, "minrelaytxfee": 0.00002 }))
    }
    fn relay_fee(&self) -> Result<f64, RpcError> {
        self.node_answers(Value::Null).map(|_| 0.00001)
    }
    fn transaction_verbose(
        &self,
        txid: &Txid,
        block: Option<&BlockHash>,
    ) -> Result<Value, RpcError> {
        // Of what is in a block, a node without txindex knows nothing unless it is told which.
        if block.is_none() && !self.world().node_is_away {
            return Err(RpcError::Refused {
                code: -5,
                message: "No such mempool transaction. Use -txindex".to_owned(),
            });
        }
        self.node_answers(
            json!({ "txid": txid.to_string(), "blockhash": block.map(ToString::to_string) }),
        )
    }
}
