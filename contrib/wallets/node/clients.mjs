// The libraries, each as its own documentation uses it. An adapter has
//
//   open()         connects and negotiates; resolves to [server's name, protocol]
//   isOpen()       whether the library thinks so
//   on(method, f)  f(params) for each push of the method
//   call(name, …)  by the library's own method where it has one
//   batch(method, scripthashes)   where it has batches
//   close()

import { createRequire } from 'node:module';
import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { host, ports } from './stage.mjs';

const require = createRequire(import.meta.url);

// What the libraries of the same family call the protocol's methods.
const NAMES = {
  'server.features': 'server_features',
  'server.ping': 'server_ping',
  'server.banner': 'server_banner',
  'blockchain.headers.subscribe': 'blockchainHeaders_subscribe',
  'blockchain.block.get_header': 'blockchainBlock_getHeader',
  'blockchain.estimatefee': 'blockchainEstimatefee',
  'blockchain.relayfee': 'blockchain_relayfee',
  'blockchain.scripthash.subscribe': 'blockchainScripthash_subscribe',
  'blockchain.scripthash.get_balance': 'blockchainScripthash_getBalance',
  'blockchain.scripthash.get_history': 'blockchainScripthash_getHistory',
  'blockchain.scripthash.listunspent': 'blockchainScripthash_listunspent',
  'blockchain.address.get_balance': 'blockchainAddress_getBalance',
  'blockchain.address.get_history': 'blockchainAddress_getHistory',
  'blockchain.transaction.get': 'blockchainTransaction_get',
  'blockchain.transaction.get_merkle': 'blockchainTransaction_getMerkle',
  'blockchain.transaction.broadcast': 'blockchainTransaction_broadcast',
};

/** npm's electrum-client, whose era is that of protocol 1.2. */
export class ElectrumClient {
  static package = 'electrum-client';
  // `new TLSSocket(options)` and connect: Node speaks TLS then, but nobody compares the certificate.
  static transports = ['tcp', 'tls'];
  closed = false;

  constructor(transport) {
    this.inner = this.begin(transport);
    const onClose = this.inner.onClose?.bind(this.inner);
    this.inner.onClose = (...words) => {
      this.closed = true;
      onClose?.(...words);
    };
  }

  /** The library's own object. */
  begin(transport) {
    const Library = require('electrum-client');
    return new Library(ports[transport], host, transport);
  }

  async open() {
    await this.inner.connect();
    return this.inner.server_version('electrum-client', '1.2');
  }

  isOpen() {
    return !this.closed;
  }

  on(method, f) {
    this.inner.subscribe.on(method, f);
  }

  call(method, ...params) {
    const own = this.inner[NAMES[method]];
    return own ? own.apply(this.inner, params) : this.inner.request(method, params);
  }

  close() {
    this.inner.close();
  }
}

/** The library that the Mempool project's explorer uses. */
export class MempoolClient extends ElectrumClient {
  static package = '@mempool/electrum-client';
  // Its TLS checks the certificate against no list.
  static transports = ['tcp', 'tls'];

  begin(transport) {
    const Library = require('@mempool/electrum-client');
    return new Library(ports[transport], host, transport, null, { onLog: () => {} });
  }

  async open() {
    // As the explorer's backend does. It connects again by itself; here the life decides when.
    const once = { retryPeriod: 3_600_000, maxRetry: 0, pingPeriod: 120_000, callback: null };
    await this.inner.initElectrum({ client: 'mempool-v3', version: '1.4' }, once);
    return this.inner.versionInfo;
  }

  // It sends a parameter `raw`, which 1.4 does not have.
  call(method, ...params) {
    if (method === 'blockchain.headers.subscribe') return this.inner.request(method, params);
    return super.call(method, ...params).then(answer =>
      // It hands out the whole reply where the result is null.
      answer && answer.jsonrpc && answer.result === null ? null : answer,
    );
  }

  async batch(name, scriptHashes) {
    const replies = await this.inner[name](scriptHashes);
    return replies.map(reply => ({ scriptHash: reply.param, result: reply.result }));
  }
}

/** The one that the Bitcoin world of TypeScript uses; asks for 1.2 to 1.4. */
export class ElectrumJs {
  static package = 'electrumjs';
  static transports = ['tcp', 'tls'];
  closed = false;

  constructor(transport) {
    const { ElectrumClient: Library } = require('electrumjs');
    this.inner = new Library(host, ports[transport], transport);
    const socket = this.inner._socketClient;
    const onClose = socket._onClose.bind(socket);
    socket._onClose = () => {
      this.closed = true;
      onClose();
    };
  }

  async open() {
    await this.inner.connect();
    return this.inner.methods.server_version('electrumjs');
  }

  isOpen() {
    return !this.closed;
  }

  on(method, f) {
    this.inner.events.on(method, f);
  }

  call(method, ...params) {
    // blockchain.scripthash.get_balance: blockchain_scripthash_getBalance
    const name = method.replaceAll('.', '_').replace(/_(get|id|fee|donation)_([a-z])/, (_, a, b) => `_${a}${b.toUpperCase()}`);
    const own = this.inner.methods[name];
    return own ? own.apply(this.inner.methods, params) : this.inner._socketClient.request(method, params);
  }

  close() {
    this.inner._socketClient.close();
  }
}

/** A socket of its own for @electrum-cash/network, which comes with WebSocket only. */
class LineSocket extends EventEmitter {
  timeout = 30_000;

  constructor(transport) {
    super();
    this.host = host;
    this.port = ports[transport];
    this.encrypted = transport === 'tls';
  }

  get hostIdentifier() {
    return `${this.host}:${this.port}`;
  }

  connect() {
    // Our server's certificate is the only one that is taken (NODE_EXTRA_CA_CERTS).
    this.inner = this.encrypted ? tls.connect(this.port, this.host) : net.connect(this.port, this.host);
    this.inner.setEncoding('utf8');
    this.inner.on(this.encrypted ? 'secureConnect' : 'connect', () => this.emit('connected'));
    this.inner.on('data', data => this.emit('data', data));
    this.inner.on('error', error => this.emit('error', error));
    this.inner.on('close', () => this.emit('disconnected'));
  }

  disconnect() {
    this.inner.destroy();
  }

  write(data, done) {
    return this.inner.write(data, done);
  }
}

/** Used by wallets of Bitcoin Cash; speaks WebSocket by itself, and by other sockets. */
export class ElectrumCash {
  static package = '@electrum-cash/network';
  static transports = ['ws', 'wss', 'tcp', 'tls'];
  // It comes back by itself, and subscribes again.
  static returns = true;

  constructor(transport) {
    this.transport = transport;
  }

  async open() {
    const { ElectrumClient: Library } = await import('@electrum-cash/network');
    const { ElectrumWebSocket } = await import('@electrum-cash/web-socket');
    const isWeb = this.transport.startsWith('ws');
    const socket = isWeb
      ? new ElectrumWebSocket(host, ports[this.transport], this.transport === 'wss')
      : new LineSocket(this.transport);
    this.inner = new Library('ambra-wallets', '1.4.1', socket, { reconnectAfterMilliSeconds: 500 });
    return this.greet();
  }

  async greet() {
    this.listeners = [];
    this.inner.on('notification', ({ method, params }) => {
      for (const [name, f] of this.listeners) if (name === method) f(params);
    });
    await this.inner.connect();
    // It takes no other version than the one that it asked for.
    return [this.inner.software, '1.4.1'];
  }

  isOpen() {
    return this.inner.status === 1;
  }

  on(method, f) {
    this.listeners.push([method, f]);
  }

  async call(method, ...params) {
    if (method.endsWith('.subscribe') && method.startsWith('blockchain.')) {
      let first;
      const keep = told => (first ??= told);
      this.listeners.push([method, keep]);
      await this.inner.subscribe(method, ...params);
      this.listeners = this.listeners.filter(([, f]) => f !== keep);
      return first[first.length - 1];
    }
    const answer = await this.inner.request(method, ...params);
    if (answer instanceof Error) throw answer;
    return answer;
  }

  async close() {
    await this.inner.disconnect(true);
  }
}

export const clients = [ElectrumJs, ElectrumClient, MempoolClient, ElectrumCash];

export function versionOf(library) {
  const path = new URL(`./node_modules/${library.package}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(path)).version;
}
