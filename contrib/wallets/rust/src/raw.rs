//! The crate `electrum-client`.

use electrum_client::{
    Batch, Client, ConfigBuilder, ElectrumApi, GetBalanceRes, Param, ScriptStatus,
    bitcoin::{BlockHash, ScriptBuf, Transaction, Txid},
    utils::validate_merkle_proof,
};

use crate::{
    life::Carrier,
    stage::{Result, Stage, address, must, same},
};

/// Of one batch.
const CALLS: usize = 100;

pub struct Raw {
    url: String,
    client: Option<Client>,
    tip: Option<(u64, BlockHash)>,
}

impl Raw {
    pub fn new(transport: &str) -> Result<Raw> {
        let scheme = if transport == "tls" { "ssl" } else { "tcp" };
        let url = format!("{scheme}://{}", address(transport)?);
        Ok(Raw {
            url,
            client: None,
            tip: None,
        })
    }

    fn client(&self) -> Result<&Client> {
        Ok(self.client.as_ref().ok_or("not connected")?)
    }
}

/// Also for the wallet of BDK. The crate can check a certificate by the web's authorities, or not at all.
pub fn connect(url: &str) -> Result<Client> {
    // It would connect again by itself, and hide that the connection was lost.
    let config = ConfigBuilder::new().validate_domain(false).retry(0).build();
    Ok(Client::from_config(url, config)?)
}

fn hex_of(status: &ScriptStatus) -> Result<String> {
    let text = serde_json::to_value(status)?;
    Ok(text.as_str().ok_or("no text")?.to_owned())
}

impl Carrier for Raw {
    fn open(&mut self) -> Result<(String, String)> {
        let client = connect(&self.url)?;
        let tip = client.block_headers_subscribe()?;
        self.tip = Some((tip.height as u64, tip.header.block_hash()));
        let name = client.server_features()?.server_version;
        let protocol = client.protocol_version()?;
        self.client = Some(client);
        Ok((name, protocol))
    }

    fn tip(&mut self) -> Result<(u64, BlockHash)> {
        // Its pushes come out when something is read.
        self.client()?.ping()?;
        while let Some(tip) = self.client()?.block_headers_pop()? {
            self.tip = Some((tip.height as u64, tip.header.block_hash()));
        }
        Ok(self.tip.ok_or("no tip")?)
    }

    fn subscribe(&mut self, script: &ScriptBuf) -> Result<Option<String>> {
        let status = self.client()?.script_subscribe(script)?;
        status.as_ref().map(hex_of).transpose()
    }

    fn pushed(&mut self, script: &ScriptBuf) -> Result<Option<String>> {
        let client = self.client()?;
        client.ping()?;
        let mut newest = None;
        while let Some(status) = client.script_pop(script)? {
            newest = Some(hex_of(&status)?);
        }
        Ok(newest)
    }

    fn history(&mut self, script: &ScriptBuf) -> Result<Vec<(Txid, i64)>> {
        let history = self.client()?.script_get_history(script)?;
        Ok(history
            .iter()
            .map(|entry| (entry.tx_hash, entry.height.into()))
            .collect())
    }

    fn balance(&mut self, script: &ScriptBuf) -> Result<(u64, i64)> {
        let GetBalanceRes {
            confirmed,
            unconfirmed,
        } = self.client()?.script_get_balance(script)?;
        Ok((confirmed, unconfirmed))
    }

    fn coins(&mut self, script: &ScriptBuf) -> Result<Vec<(Txid, u64)>> {
        let coins = self.client()?.script_list_unspent(script)?;
        Ok(coins
            .iter()
            .map(|coin| (coin.tx_hash, coin.value))
            .collect())
    }

    fn transaction(&mut self, txid: Txid) -> Result<Transaction> {
        Ok(self.client()?.transaction_get(&txid)?)
    }

    fn is_proved(&mut self, txid: Txid, height: u64) -> Result<bool> {
        let height = usize::try_from(height)?;
        let root = self.client()?.block_header(height)?.merkle_root;
        let proof = self.client()?.transaction_get_merkle(&txid, height)?;
        Ok(validate_merkle_proof(&txid, &root, &proof))
    }

    fn broadcast(&mut self, transaction: &Transaction) -> Result<Txid> {
        Ok(self.client()?.transaction_broadcast(transaction)?)
    }

    fn is_open(&mut self) -> bool {
        self.client().is_ok_and(|client| client.ping().is_ok())
    }

    fn more(&mut self, stage: &mut Stage, scripts: &[ScriptBuf]) -> Result<()> {
        let client = self.client()?;
        stage.step("raw calls", |_| {
            let banner = client.raw_call("server.banner", Vec::new())?;
            must(banner.is_string(), "a banner")?;
            let fee = client.raw_call("blockchain.estimatefee", [Param::U32(6)])?;
            must(fee.is_number(), "a fee")?;
            let unknown = client.raw_call("blockchain.nothing", Vec::new());
            must(unknown.is_err(), "an unknown method is refused")?;
            must(
                client.mempool_get_info()?.minrelaytxfee > 0.0,
                "fees of the mempool",
            )?;
            Ok(String::new())
        })?;
        stage.step("batch calls", |stage| {
            let tip = usize::try_from(stage.height()?)?;
            let mut batch = Batch::default();
            (0..CALLS).for_each(|height| batch.block_header((height % tip) as u32));
            same(client.batch_call(&batch)?.len(), CALLS, "answers")?;
            let wanted = scripts.iter().map(|script| script.as_script());
            let histories = client.batch_script_get_history(wanted)?;
            must(
                histories.iter().all(|history| history.len() == 1),
                "histories",
            )?;
            let heights = client.batch_block_header(0..CALLS as u32)?;
            let linked = heights
                .windows(2)
                .all(|pair| pair[1].prev_blockhash == pair[0].block_hash());
            must(linked, "headers follow on each other")?;
            Ok(format!("{CALLS} calls in a batch"))
        })
    }
}
