//! A wallet of `bdk_wallet`, kept in step by `bdk_electrum`: 500 addresses used.

use bdk_electrum::{BdkElectrumClient, electrum_client};
use bdk_wallet::{
    KeychainKind, SignOptions, Wallet,
    bitcoin::{Address, Amount, FeeRate, Network, Psbt, Txid, secp256k1::Secp256k1},
    descriptor::IntoWalletDescriptor,
    miniscript::descriptor::KeyMapWrapper,
};
use electrum_client::{Client, ElectrumApi};
use serde_json::{Value, json};

use crate::{
    locked, raw,
    stage::{Result, Stage, must, same, wait},
};

/// Keys from BDK's own examples: nobody's.
const RECEIVING: &str = "wpkh(tprv8ZgxMBicQKsPdy6LMhUtFHAgpocR8GC6QmwMSFpZs7h6Eziw3SpThFfczTDh5rW2krkqffa11UpX3XkeTTB2FvzZKWXqPY54Y6Rq4AQ5R8L/84'/1'/0'/0/*)";
const CHANGE: &str = "wpkh(tprv8ZgxMBicQKsPdy6LMhUtFHAgpocR8GC6QmwMSFpZs7h6Eziw3SpThFfczTDh5rW2krkqffa11UpX3XkeTTB2FvzZKWXqPY54Y6Rq4AQ5R8L/84'/1'/0'/1/*)";
const ADDRESSES: u32 = 500;
/// Each gets so much, in payments to a hundred at once.
const SATS: u64 = 1_000_000;
const AT_ONCE: usize = 100;
const STOP_GAP: usize = 25;
const BATCH: usize = 50;

struct Life {
    url: String,
    client: BdkElectrumClient<Client>,
    wallet: Wallet,
    keys: KeyMapWrapper,
}

impl Life {
    fn sync(&mut self) -> Result<()> {
        let request = self.wallet.start_sync_with_revealed_spks();
        let update = self.client.sync(request, BATCH, false)?;
        self.wallet.apply_update(update)?;
        Ok(())
    }

    /// Syncs until a transaction is at this height (`None`: unconfirmed) and the tip is the node's.
    fn sync_until(&mut self, stage: &mut Stage, txid: Txid, height: Option<u32>) -> Result<()> {
        wait("the wallet has it", || {
            self.sync()?;
            let tip = stage.act("tip", json!({}))?;
            let is_at_tip = tip["hash"] == self.wallet.latest_checkpoint().hash().to_string();
            let found = self.wallet.get_tx(txid);
            let place = found.map(|tx| tx.chain_position.confirmation_height_upper_bound());
            Ok((is_at_tip && place == Some(height)).then_some(()))
        })
    }

    fn send(&mut self, mut psbt: Psbt) -> Result<Txid> {
        psbt.sign(&self.keys, self.wallet.secp_ctx())
            .map_err(|(_, errors)| format!("{errors:?}"))?;
        let is_signed = self
            .wallet
            .finalize_psbt(&mut psbt, SignOptions::default())?;
        must(is_signed, "signed")?;
        let transaction = psbt.extract_tx()?;
        let txid = self.client.transaction_broadcast(&transaction)?;
        same(txid, transaction.compute_txid(), "txid")?;
        Ok(txid)
    }
}

fn keys() -> Result<KeyMapWrapper> {
    let secp = Secp256k1::new();
    let mut keys = RECEIVING
        .into_wallet_descriptor(&secp, Network::Regtest.into())?
        .1;
    keys.extend(
        CHANGE
            .into_wallet_descriptor(&secp, Network::Regtest.into())?
            .1,
    );
    Ok(KeyMapWrapper::from(keys))
}

fn new_wallet() -> Result<Wallet> {
    let wallet = Wallet::create(RECEIVING, CHANGE).network(Network::Regtest);
    Ok(wallet.create_wallet_no_persist()?)
}

fn mined(stage: &mut Stage) -> Result<u32> {
    let tip = stage.act("mine", json!({}))?;
    Ok(u32::try_from(tip["height"].as_u64().ok_or("no height")?)?)
}

fn pool(stage: &mut Stage) -> Result<Value> {
    stage.act("rpc", json!({"method": "getrawmempool"}))
}

pub fn live(stage: &mut Stage, transport: &str) -> Result<()> {
    let version = format!(
        "{}, bdk_wallet {}",
        locked("bdk_electrum").ok_or("not locked")?,
        locked("bdk_wallet").ok_or("not locked")?
    );
    stage.act(
        "about",
        json!({"client": "bdk_electrum", "version": version}),
    )?;

    // 0. Another copy of the wallet was used before.
    let mut earlier = new_wallet()?;
    let addresses: Vec<String> = earlier
        .reveal_addresses_to(KeychainKind::External, ADDRESSES - 1)
        .map(|info| info.address.to_string())
        .collect();
    for some in addresses.chunks(AT_ONCE) {
        stage.act("pay_many", json!({"addresses": some, "sats": SATS}))?;
    }
    stage.act("mine", json!({}))?;
    let mut total = u64::from(ADDRESSES) * SATS;

    let scheme = if transport == "tls" { "ssl" } else { "tcp" };
    let url = format!("{scheme}://{}", crate::stage::address(transport)?);
    let mut life = None;
    stage.step("connect", |stage| {
        let client = raw::connect(&url)?;
        let (name, protocol) = (
            client.server_features()?.server_version,
            client.protocol_version()?,
        );
        stage.act("about", json!({"protocol": protocol}))?;
        let client = BdkElectrumClient::new(client);
        life = Some(Life {
            url: url.clone(),
            client,
            wallet: new_wallet()?,
            keys: keys()?,
        });
        Ok(format!("{name}, protocol {protocol}"))
    })?;
    let mut life = life.ok_or("not connected")?;

    stage.step("restore", |_| {
        wait("Ambra has the last block", || {
            let request = life.wallet.start_full_scan();
            let update = life.client.full_scan(request, STOP_GAP, BATCH, false)?;
            life.wallet.apply_update(update)?;
            Ok((life.wallet.balance().confirmed.to_sat() == total).then_some(()))
        })?;
        let last = life.wallet.derivation_index(KeychainKind::External);
        same(last, Some(ADDRESSES - 1), "the last used address")?;
        let calls = life.client.inner.calls_made()?;
        Ok(format!(
            "full scan of {ADDRESSES} used addresses, {calls} calls"
        ))
    })?;

    stage.step("sync", |_| {
        life.sync()?;
        same(life.wallet.balance().total().to_sat(), total, "balance")?;
        same(
            life.wallet.transactions().count(),
            ADDRESSES as usize / AT_ONCE,
            "transactions",
        )?;
        Ok(format!("{ADDRESSES} revealed addresses"))
    })?;

    let mut paid: Option<Txid> = None;
    stage.step("receive", |stage| {
        let to = life
            .wallet
            .reveal_next_address(KeychainKind::External)
            .address;
        let payment = json!({"address": to.to_string(), "sats": SATS});
        let txid = stage.text("pay", payment, "txid")?.parse()?;
        life.sync_until(stage, txid, None)?;
        same(
            life.wallet.balance().untrusted_pending.to_sat(),
            SATS,
            "pending",
        )?;
        paid = Some(txid);
        Ok(String::new())
    })?;
    let first = paid.ok_or("nothing paid")?;

    let mut paid = first;
    stage.step("receive a replaced one", |stage| {
        paid = stage
            .text("bump", json!({"txid": first}), "txid")?
            .parse()?;
        life.sync_until(stage, paid, None)?;
        must(life.wallet.get_tx(first).is_none(), "the first is gone")?;
        same(
            life.wallet.balance().untrusted_pending.to_sat(),
            SATS,
            "pending",
        )?;
        Ok(String::new())
    })?;

    stage.step("confirm", |stage| {
        let height = mined(stage)?;
        life.sync_until(stage, paid, Some(height))?;
        total += SATS;
        same(life.wallet.balance().confirmed.to_sat(), total, "balance")?;
        Ok(String::new())
    })?;

    let mut sent = paid;
    stage.step("send", |stage| {
        let to: Address<_> = stage.text("address", json!({}), "")?.parse()?;
        let to = to.require_network(Network::Regtest)?;
        let mut builder = life.wallet.build_tx();
        builder.add_recipient(to.script_pubkey(), Amount::from_sat(20 * SATS));
        builder.fee_rate(FeeRate::from_sat_per_vb(2).ok_or("fee rate")?);
        let psbt = builder.finish()?;
        sent = life.send(psbt)?;
        must(
            pool(stage)?
                .as_array()
                .is_some_and(|pool| pool.contains(&json!(sent))),
            "the node has it",
        )?;
        life.sync_until(stage, sent, None)?;
        Ok("from 21 coins or more".to_owned())
    })?;

    stage.step("replace", |stage| {
        let replaced = sent;
        let mut builder = life.wallet.build_fee_bump(replaced)?;
        builder.fee_rate(FeeRate::from_sat_per_vb(20).ok_or("fee rate")?);
        let psbt = builder.finish()?;
        sent = life.send(psbt)?;
        same(pool(stage)?, json!([sent]), "the node's mempool")?;
        life.sync_until(stage, sent, None)?;
        must(life.wallet.get_tx(replaced).is_none(), "the first is gone")?;
        Ok(String::new())
    })?;

    stage.step("reorg", |stage| {
        let height = mined(stage)?;
        life.sync_until(stage, sent, Some(height))?;
        stage.act("reorg", json!({}))?;
        life.sync_until(stage, sent, None)?;
        let height = mined(stage)?;
        life.sync_until(stage, sent, Some(height))?;
        Ok(String::new())
    })?;

    stage.step("restart", |stage| {
        stage.act("restart", json!({}))?;
        must(life.sync().is_err(), "the old connection has ended")?;
        life.client = BdkElectrumClient::new(raw::connect(&life.url)?);
        let known = life.wallet.tx_graph().full_txs().map(|node| node.tx);
        life.client.populate_tx_cache(known.collect::<Vec<_>>());
        let to = life
            .wallet
            .reveal_next_address(KeychainKind::External)
            .address;
        let payment = json!({"address": to.to_string(), "sats": SATS});
        let txid = stage.text("pay", payment, "txid")?.parse()?;
        life.sync_until(stage, txid, None)?;
        let height = mined(stage)?;
        life.sync_until(stage, txid, Some(height))?;
        Ok(String::new())
    })
}
