// The life of a wallet that is made of a library: the library carries the bytes, this page keeps the books, and
// the scene's purse has the keys.
//
//   node life.mjs PACKAGE TRANSPORT

import { createHash } from 'node:crypto';
import { act, must, notOffered, pause, same, step, wait } from './stage.mjs';
import { children } from './children.mjs';
import { clients, versionOf } from './clients.mjs';

const [packageName, transport] = process.argv.slice(2);
const Client = [...clients, ...children].find(client => client.package === packageName);
const COIN = 100_000_000;

const sha256 = bytes => createHash('sha256').update(bytes).digest();
const twice = bytes => sha256(sha256(bytes));
const display = bytes => Buffer.from(bytes).reverse().toString('hex');
const internal = hex => Buffer.from(hex, 'hex').reverse();
const scriptHash = script => display(sha256(Buffer.from(script, 'hex')));

/** The protocol's status of a history. */
function statusOf(history) {
  if (history.length === 0) return null;
  return sha256(history.map(entry => `${entry.tx_hash}:${entry.height}:`).join('')).toString('hex');
}

/** The root that a branch leads to. */
function rootOf(txid, { merkle, pos }) {
  let node = internal(txid);
  for (const other of merkle) {
    node = twice(Buffer.concat(pos % 2 ? [internal(other), node] : [node, internal(other)]));
    pos >>= 1;
  }
  return display(node);
}

/** Block hash, height and merkle root of a header in whatever shape the version has. */
function readHeader(header) {
  if (header.hex !== undefined) {
    const bytes = Buffer.from(header.hex, 'hex');
    same(bytes.length, 80, 'bytes of a header');
    return { height: header.height, hash: display(twice(bytes)), root: display(bytes.subarray(36, 68)) };
  }
  const bytes = Buffer.alloc(80);
  bytes.writeInt32LE(header.version, 0);
  internal(header.prev_block_hash).copy(bytes, 4);
  internal(header.merkle_root).copy(bytes, 36);
  bytes.writeUInt32LE(header.timestamp, 68);
  bytes.writeUInt32LE(header.bits, 72);
  bytes.writeUInt32LE(header.nonce, 76);
  return { height: header.block_height, hash: display(twice(bytes)), root: header.merkle_root };
}

let client;
/** The wallet's books: what the server told, by script hash. */
const scripts = new Map();
let tip;

async function open() {
  client = new Client(transport);
  const [name, protocol] = await client.open();
  client.on('blockchain.headers.subscribe', ([header]) => (tip = readHeader(header)));
  client.on('blockchain.scripthash.subscribe', ([hash, status]) => {
    const script = scripts.get(hash);
    if (script) script.status = status;
  });
  tip = readHeader(await client.call('blockchain.headers.subscribe'));
  return [name, protocol];
}

async function subscribe() {
  for (const [hash, script] of scripts) {
    script.status = await client.call('blockchain.scripthash.subscribe', hash);
  }
}

/** Until the history of a script is this (pairs of txid and height), and its last status says so too. */
async function waitForHistory(hash, expected) {
  let last;
  const reached = async () => {
    const history = await client.call('blockchain.scripthash.get_history', hash);
    last = history.map(({ tx_hash, height }) => [tx_hash, height]);
    return JSON.stringify(last) === JSON.stringify(expected) && scripts.get(hash).status === statusOf(history);
  };
  await wait('history', reached).catch(error => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}, not ${JSON.stringify(expected)}`);
  });
}

async function waitForTip(expected) {
  await wait(`tip ${expected.height}`, () => tip.height === expected.height && tip.hash === expected.hash).catch(
    error => {
      throw new Error(`${error.message}: ${JSON.stringify(tip)}`);
    },
  );
}

async function balance(hash, confirmed, unconfirmed) {
  same(await client.call('blockchain.scripthash.get_balance', hash), { confirmed, unconfirmed }, 'balance');
}

await act('about', { client: packageName, version: versionOf(Client), transport });

// 0. A wallet with a past: one payment to each of three kinds of script, confirmed.
const past = [];
for (const kind of ['bech32', 'bech32m', 'legacy']) {
  const { address, script } = await act('purse_address', { kind });
  const { txid } = await act('pay', { address, sats: COIN });
  past.push({ address, hash: scriptHash(script), txid });
}
const { height: start } = await act('mine');

await step('connect', async () => {
  const [name, protocol] = await open();
  await act('about', { protocol: protocol ?? '1.0' });
  await waitForTip(await act('tip'));
  return `${name}, protocol ${protocol}`;
});

await step('restore', async () => {
  for (const { hash } of past) scripts.set(hash, {});
  await subscribe();
  for (const script of scripts.values()) must(script.status, 'a status');
});

await step('sync', async () => {
  for (const { hash, txid } of past) {
    await waitForHistory(hash, [[txid, start]]);
    await balance(hash, COIN, 0);
    const coins = await client.call('blockchain.scripthash.listunspent', hash);
    same(coins.map(coin => [coin.tx_hash, coin.height, coin.value]), [[txid, start, COIN]], 'coins');
    // A txid is of the bytes without witnesses; the node decodes them.
    const hex = await client.call('blockchain.transaction.get', txid);
    const decoded = await act('rpc', { method: 'decoderawtransaction', params: [hex] });
    same(decoded.txid, txid, 'txid');
    const proof = await client.call('blockchain.transaction.get_merkle', txid, start);
    same(rootOf(txid, proof), tip.root, 'merkle root');
  }
});

const { address, script } = await act('purse_address');
const hash = scriptHash(script);
let paid;

await step('receive', async () => {
  scripts.set(hash, {});
  await subscribe();
  same(scripts.get(hash).status, null, 'status of an unused script');
  paid = (await act('pay', { address, sats: COIN / 2 })).txid;
  await waitForHistory(hash, [[paid, 0]]);
  await balance(hash, 0, COIN / 2);
});

await step('receive a replaced one', async () => {
  paid = (await act('bump', { txid: paid })).txid;
  await waitForHistory(hash, [[paid, 0]]);
});

await step('confirm', async () => {
  const mined = await act('mine');
  await waitForTip(mined);
  await waitForHistory(hash, [[paid, mined.height]]);
  await balance(hash, COIN / 2, 0);
  paid = [paid, mined.height];
});

let sent;

await step('send', async () => {
  const payment = await act('purse_spend', { address: await act('address'), sats: COIN / 10, script });
  same(await client.call('blockchain.transaction.broadcast', payment.hex), payment.txid, 'txid');
  must((await act('rpc', { method: 'getrawmempool' })).includes(payment.txid), 'the node has it');
  await waitForHistory(hash, [paid, [payment.txid, 0]]);
  sent = payment.txid;
});

await step('replace', async () => {
  const payment = await act('purse_bump', { txid: sent });
  same(await client.call('blockchain.transaction.broadcast', payment.hex), payment.txid, 'txid');
  await waitForHistory(hash, [paid, [payment.txid, 0]]);
  const told = (refused => refused)(
    await client.call('blockchain.transaction.broadcast', payment.hex.slice(0, -2)).then(
      () => null,
      error => String(error.message ?? error),
    ),
  );
  must(told, 'a broken transaction is refused');
  sent = payment.txid;
  return 'a broken transaction is refused in words';
});

await step('reorg', async () => {
  const mined = await act('mine');
  await waitForHistory(hash, [paid, [sent, mined.height]]);
  await waitForTip(await act('reorg'));
  await waitForHistory(hash, [paid, [sent, 0]]);
  const again = await act('mine');
  await waitForTip(again);
  await waitForHistory(hash, [paid, [sent, again.height]]);
  sent = [sent, again.height];
});

if (client.batch) {
  await step('batch', async () => {
    const hashes = past.map(({ hash }) => hash);
    const told = await client.batch('blockchainScripthash_getBalanceBatch', hashes);
    for (const hash of hashes) {
      const found = told.find(reply => reply.scriptHash === hash);
      same(found?.result, await client.call('blockchain.scripthash.get_balance', hash), 'balance');
    }
    return `${hashes.length} calls`;
  });
}

await step('restart', async () => {
  await act('stop_ambra');
  await wait('it hears of the end', () => !client.isOpen());
  const { txid } = await act('pay', { address, sats: COIN / 4 });
  await act('start_ambra');
  if (Client.returns) {
    await wait('it comes back by itself', () => client.isOpen());
  } else {
    await client.close();
    await open();
    await subscribe();
  }
  await waitForHistory(hash, [paid, sent, [txid, 0]]);
  const mined = await act('mine');
  await waitForTip(mined);
  await waitForHistory(hash, [paid, sent, [txid, mined.height]]);
  return Client.returns ? 'by itself' : '';
});

await client.close();
process.exit(0);
