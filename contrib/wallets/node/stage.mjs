// The scene as a client in Node.js sees it.

import { once } from 'node:events';
import { createInterface } from 'node:readline';
import net from 'node:net';

const env = process.env;
export const host = env.SCENE_HOST;
export const ports = Object.fromEntries(
  ['tcp', 'tls', 'ws', 'wss'].map(scheme => [scheme, Number(env['SCENE_' + scheme.toUpperCase()])]),
);
// For whatever is to be seen.
const PATIENCE_MS = 300_000;
// For a step: some libraries wait for ever for what does not come. Longer than any wait in it.
const STEP_MS = 2 * PATIENCE_MS;

const [sceneHost, scenePort] = env.SCENE.split(':');
const socket = net.connect(Number(scenePort), sceneHost);
const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
await once(socket, 'connect');

/** Asks the scene to do something. */
export async function act(name, members = {}) {
  socket.write(JSON.stringify({ do: name, ...members }) + '\n');
  const { value } = await lines.next();
  const reply = JSON.parse(value);
  if (reply.error) throw new Error(`${name}: ${reply.error}`);
  return reply.result;
}

export const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

/** Asks until the answer is a yes, and returns it. */
export async function wait(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what}: not within ${PATIENCE_MS / 1000} s`);
    await pause(20);
  }
}

/** What a promise comes to, or an error where it comes to nothing. */
async function within(promise) {
  let timer;
  const end = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end within ${STEP_MS / 1000} s`)), STEP_MS);
  });
  try {
    return await Promise.race([promise, end]);
  } finally {
    clearTimeout(timer);
  }
}

/** A step of the life. What fails ends the life: the next steps stand on it. */
export async function step(name, body) {
  const began = Date.now();
  const seconds = () => (Date.now() - began) / 1000;
  try {
    const detail = (await within(body())) ?? '';
    await act('step', { name, outcome: 'ok', seconds: seconds(), detail });
  } catch (error) {
    console.error(error);
    const detail = String(error?.message ?? JSON.stringify(error)).slice(0, 300);
    await act('step', { name, outcome: 'failed', seconds: seconds(), detail });
    process.exit(1);
  }
}

export async function notOffered(name, why) {
  await act('step', { name, outcome: 'not offered', detail: why });
}

export function must(holds, what) {
  if (!holds) throw new Error(what);
}

export function same(found, expected, what) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  must(left === right, `${what}: ${left}, not ${right}`);
}
