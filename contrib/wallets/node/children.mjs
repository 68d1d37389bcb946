// Libraries that grew out of npm's electrum-client, and the elder one of @electrum-cash/network: adapters as in
// clients.mjs, each with what is different.

import { createRequire } from 'node:module';
import net from 'node:net';
import tls from 'node:tls';
import { ElectrumCash, ElectrumClient, MempoolClient } from './clients.mjs';
import { ElectrumClient as Dojo } from '@samouraiwallet/electrum-client';
import { host, ports } from './stage.mjs';

const require = createRequire(import.meta.url);

/** Some hand out the whole reply where the result is null. */
const resultOf = answer => (answer?.jsonrpc && answer.result === null ? null : answer);

/** The one of Bitkit, and of others who write for React Native. */
export class ReactNative extends ElectrumClient {
  static package = 'rn-electrum-client';
  // Its TLS is made for React Native's sockets: with Node's it waits for ever.
  static transports = ['tcp'];

  begin(transport) {
    const Library = require('rn-electrum-client');
    return new Library(ports[transport], host, transport, net, tls);
  }

  async open() {
    const { error, data } = await this.inner.connect();
    if (error) throw new Error(String(data));
    // As its helpers do.
    return this.inner.server_version('1.9', '1.4');
  }

  async call(method, ...params) {
    const answer = resultOf(await super.call(method, ...params));
    // It answers some failures by such an object.
    if (answer?.error === true) throw answer.data;
    return answer;
  }

  async batch(name, scriptHashes) {
    const replies = await this.inner.requestBatch('blockchain.scripthash.get_balance', scriptHashes);
    return replies.map(reply => ({ scriptHash: reply.param, result: reply.result }));
  }
}

/** For Node.js and browsers, with batches. */
export class Js extends ElectrumClient {
  static package = 'electrum-client-js';
  static transports = ['tcp', 'tls'];

  begin(transport) {
    const Library = require('electrum-client-js');
    return new Library(ports[transport], host, transport, {});
  }

  async open() {
    // Without a listener the end of a connection ends the program.
    this.inner.on('error', () => {});
    await this.inner.initElectrum({}, { maxRetry: 0, callback: null });
    return this.inner.server_version('electrum-client-js', '1.4');
  }

  async call(method, ...params) {
    return resultOf(await super.call(method, ...params));
  }

  async batch(name, scriptHashes) {
    const replies = await this.inner.blockchainScripthash_getBalanceBatch(...scriptHashes);
    return replies.map(reply => ({ scriptHash: reply.param, result: reply.result }));
  }
}

/** Samourai's (and Dojo's), grown out of Mempool's. */
export class Samourai extends MempoolClient {
  static package = '@samouraiwallet/electrum-client';
  static transports = ['tls', 'tcp'];

  async open() {
    // As Dojo does. It connects again by itself; here the life decides when.
    const once = { retryPeriod: 3_600_000, maxRetry: 0, pingPeriod: 120_000, callback: null };
    await this.inner.initElectrum({ client: 'dojo', version: ['1.2', '1.4'] }, once);
    return this.inner.versionInfo;
  }

  begin(transport) {
    return new Dojo(ports[transport], host, transport, { onLog: () => {} });
  }
}

/** Asks for the banner before it says its version; speaks WebSocket too. */
export class Codewarriorr extends ElectrumClient {
  static package = '@codewarriorr/electrum-client-js';
  // Its TLS wraps what today's Node takes for no stream.
  static transports = ['wss', 'tcp', 'ws'];

  begin(transport) {
    const Library = require('@codewarriorr/electrum-client-js');
    const inner = new Library(host, ports[transport], transport, { rejectUnauthorized: false });
    // Its own words say the version that was agreed on, and hand it out to nobody.
    const version = inner.server_version.bind(inner);
    inner.server_version = async (...words) => (this.version = await version(...words));
    return inner;
  }

  async open() {
    await this.inner.connect('codewarriorr', '1.4');
    return this.version;
  }
}

/** What @electrum-cash/network was before: with sockets of its own for all transports. */
export class ElderCash extends ElectrumCash {
  static package = 'electrum-cash';
  static transports = ['tls', 'wss', 'tcp', 'ws'];

  async open() {
    const { ElectrumClient: Library } = await import('electrum-cash');
    const scheme = this.transport === 'tls' ? 'tcp_tls' : this.transport;
    this.inner = new Library('ambra-wallets', '1.4.1', host, ports[this.transport], scheme, 30_000, 120_000, 500);
    return this.greet();
  }

  isOpen() {
    return this.inner.connection.status === 1;
  }
}

export const children = [ReactNative, Js, Samourai, Codewarriorr, ElderCash];
