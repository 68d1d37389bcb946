//! The crate `electrum_streaming_client`: pushes and answers as a stream of events.

use std::collections::HashMap;

use electrum_client::bitcoin::{BlockHash, ScriptBuf, Transaction, Txid};
use electrum_streaming_client::{
    AsyncBatchRequest, AsyncClient, AsyncEventReceiver, ElectrumScriptHash, Event,
    notification::Notification, request,
};
use serde_json::json;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinHandle};

use crate::{
    life::Carrier,
    stage::{Result, Stage, address},
};

struct Connection {
    client: AsyncClient,
    events: AsyncEventReceiver,
    task: JoinHandle<std::io::Result<()>>,
}

pub struct Streaming {
    runtime: Runtime,
    connection: Option<Connection>,
    tip: Option<(u64, BlockHash)>,
    statuses: HashMap<ElectrumScriptHash, Option<String>>,
}

impl Streaming {
    pub fn new() -> Result<Streaming> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Streaming {
            runtime,
            connection: None,
            tip: None,
            statuses: HashMap::new(),
        })
    }

    fn ask<R, T>(&self, ask: impl FnOnce(AsyncClient) -> R) -> Result<T>
    where
        R: Future<Output = std::result::Result<T, electrum_streaming_client::AsyncRequestError>>,
    {
        let connection = self.connection.as_ref().ok_or("not connected")?;
        Ok(self.runtime.block_on(ask(connection.client.clone()))?)
    }

    /// Takes in what was pushed.
    fn read(&mut self) -> Result<()> {
        // A round trip: what was pushed before is there.
        self.ask(|client| async move { client.send_request(request::Ping).await })?;
        let connection = self.connection.as_mut().ok_or("not connected")?;
        while let Ok(event) = connection.events.try_recv() {
            match event {
                Event::Notification(Notification::Header(header)) => {
                    self.tip = Some((header.height().into(), header.header().block_hash()));
                }
                Event::Notification(Notification::ScriptHash(told)) => {
                    let status = told.script_status().map(|status| status.to_string());
                    self.statuses.insert(told.script_hash(), status);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Carrier for Streaming {
    fn open(&mut self) -> Result<(String, String)> {
        let address = address("tcp")?;
        let stream = self.runtime.block_on(TcpStream::connect(address))?;
        let (reader, writer) = stream.into_split();
        let (client, events, work) = AsyncClient::new_tokio(reader, writer);
        let task = self.runtime.spawn(work);
        self.connection = Some(Connection {
            client,
            events,
            task,
        });
        let version = request::Custom {
            method: "server.version".into(),
            params: vec![json!("electrum_streaming_client"), json!("1.4")],
        };
        let told = self.ask(|client| async move { client.send_request(version).await })?;
        let tip =
            self.ask(|client| async move { client.send_request(request::HeadersSubscribe).await })?;
        self.tip = Some((tip.height.into(), tip.header.block_hash()));
        let word = |place: usize| told[place].as_str().unwrap_or_default().to_owned();
        Ok((word(0), word(1)))
    }

    fn tip(&mut self) -> Result<(u64, BlockHash)> {
        self.read()?;
        Ok(self.tip.ok_or("no tip")?)
    }

    fn subscribe(&mut self, script: &ScriptBuf) -> Result<Option<String>> {
        let subscribe = request::ScriptHashSubscribe::from_script(script);
        let status = self.ask(|client| async move { client.send_request(subscribe).await })?;
        Ok(status.map(|status| status.to_string()))
    }

    fn pushed(&mut self, script: &ScriptBuf) -> Result<Option<String>> {
        self.read()?;
        Ok(self
            .statuses
            .remove(&ElectrumScriptHash::new(script))
            .flatten())
    }

    fn history(&mut self, script: &ScriptBuf) -> Result<Vec<(Txid, i64)>> {
        let get = request::GetHistory::from_script(script);
        let history = self.ask(|client| async move { client.send_request(get).await })?;
        Ok(history
            .iter()
            .map(|entry| (entry.txid(), entry.electrum_height()))
            .collect())
    }

    fn balance(&mut self, script: &ScriptBuf) -> Result<(u64, i64)> {
        let get = request::GetBalance::from_script(script);
        let balance = self.ask(|client| async move { client.send_request(get).await })?;
        Ok((
            balance.confirmed.to_sat(),
            balance.unconfirmed.to_sat() as i64,
        ))
    }

    fn coins(&mut self, script: &ScriptBuf) -> Result<Vec<(Txid, u64)>> {
        let list = request::ListUnspent::from_script(script);
        let coins = self.ask(|client| async move { client.send_request(list).await })?;
        Ok(coins
            .iter()
            .map(|coin| (coin.txid, coin.value.to_sat()))
            .collect())
    }

    fn transaction(&mut self, txid: Txid) -> Result<Transaction> {
        Ok(self
            .ask(|client| async move { client.send_request(request::GetTx { txid }).await })?
            .tx)
    }

    fn is_proved(&mut self, txid: Txid, height: u64) -> Result<bool> {
        let height = u32::try_from(height)?;
        let header = self
            .ask(|client| async move { client.send_request(request::Header { height }).await })?;
        let proof = self.ask(|client| async move {
            client
                .send_request(request::GetTxMerkle { txid, height })
                .await
        })?;
        Ok(proof.expected_merkle_root(txid) == header.header.merkle_root)
    }

    fn broadcast(&mut self, transaction: &Transaction) -> Result<Txid> {
        let send = request::BroadcastTx(transaction.clone());
        self.ask(|client| async move { client.send_request(send).await })
    }

    fn is_open(&mut self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| !connection.task.is_finished())
    }

    fn more(&mut self, stage: &mut Stage, scripts: &[ScriptBuf]) -> Result<()> {
        let connection = self.connection.as_ref().ok_or("not connected")?;
        stage.step("batch calls", |_| {
            let mut batch = AsyncBatchRequest::new();
            let answers: Vec<_> = scripts
                .iter()
                .map(|script| batch.request(request::GetHistory::from_script(script)))
                .collect();
            connection.client.send_batch(batch)?;
            let answers = self.runtime.block_on(futures::future::join_all(answers));
            for answer in answers {
                crate::stage::same(answer?.len(), 1, "entries of a history")?;
            }
            Ok(format!("{} calls in a batch", scripts.len()))
        })
    }
}
