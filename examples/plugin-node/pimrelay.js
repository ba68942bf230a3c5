// The contract between pimrelay and a forwarder in Node.js: take this file as
// it is. What a forwarder has to export is shown in forwarder.js; the contract
// itself is in forwarder.proto.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { HealthImplementation } from 'grpc-health-check';
import selfsigned from 'selfsigned';

import { Faults, readConfig } from './config.js';

export { Faults };

const maxMessage = 64 << 20; // bytes of one request
const drainTime = 20_000; // milliseconds that a service waits for deliveries when it is told to stop

// Outcomes of one event. after is in milliseconds.
export const delivered = () => ({ result: 'RESULT_DELIVERED' });
export const retry = (reason, after = 0, answer = '') => ({ result: 'RESULT_RETRY', reason, answer, after: duration(after) });
export const throttled = (reason, after = 0, answer = '') => ({ result: 'RESULT_THROTTLED', reason, answer, after: duration(after) });
export const rejected = (reason, answer = '') => ({ result: 'RESULT_REJECTED', reason, answer });

const duration = (ms) => ({ seconds: Math.floor(ms / 1000), nanos: Math.floor(ms % 1000) * 1_000_000 });

// main serves the forwarder: to the relay that has started this process, or as
// a service of its own with --listen unix:///run/x.sock [--mode 0660].
export async function main(forwarder) {
  const args = process.argv.slice(2);
  try {
    if (process.env.PIMRELAY_PLUGIN === 'forwarder') await serveRelay(forwarder);
    else if (args.length >= 2 && args[0] === '--listen') await serveAlone(forwarder, args);
    else {
      process.stderr.write(usage);
      process.exit(2);
    }
  } catch (err) {
    log.error(err.message);
    process.exit(1);
  }
}

const usage = `This is a forwarder plugin of pimrelay, which starts it by itself:

    forwarders:
      example:
        command: [${process.execPath}, ${fileURLToPath(new URL('main.js', import.meta.url))}]

Try it without a relay:

    pimrelay plugin verify --config verify.yaml -- node main.js

Or run it as a service of its own, which a relay connects to with
address: unix:///run/example.sock

    node main.js --listen unix:///run/example.sock [--mode 0660]
`;

// serveRelay serves the relay, until that says to stop or has gone.
async function serveRelay(forwarder) {
  // The relay decides when what is in hand is finished.
  process.on('SIGTERM', () => {});
  process.on('SIGINT', () => {});
  if (process.env.PIMRELAY_PARENT) {
    // Standard input is a pipe that closes when the relay has gone.
    for (const ended of ['end', 'close', 'error']) process.stdin.on(ended, () => process.exit(1));
    process.stdin.resume();
  }
  const relay = process.env.PLUGIN_CLIENT_CERT;
  if (!relay) throw new Error('PLUGIN_CLIENT_CERT is missing: who may call could not be told');
  const own = await certificate();
  // Only the holder of the relay's certificate may call.
  const credentials = grpc.ServerCredentials.createSsl(
    Buffer.from(relay), [{ private_key: Buffer.from(own.private), cert_chain: Buffer.from(own.cert) }], true);
  const directory = process.env.PLUGIN_UNIX_SOCKET_DIR || fs.mkdtempSync(path.join(os.tmpdir(), 'plugin-'));
  const socket = path.join(directory, 'plugin.sock');
  const { server } = build(forwarder);
  server.addService(controller, {
    Shutdown(_, callback) {
      callback(null, {});
      server.tryShutdown(() => process.exit(0));
      setTimeout(() => process.exit(0), 1000);
    },
  });
  await bind(server, `unix:${socket}`, credentials);
  const der = own.cert.replace(/-----[A-Z ]+-----|\s|=/g, ''); // base64 without padding
  process.stdout.write(`1|1|unix|${socket}|grpc|${der}\n`);
}

// certificate is for this process's life. The relay trusts it because it has
// read it from this process, as its own authority and for "localhost".
function certificate() {
  const hour = 3_600_000;
  return selfsigned.generate([{ name: 'commonName', value: 'localhost' }], {
    keyType: 'ec', curve: 'P-256', algorithm: 'sha256',
    notBeforeDate: new Date(Date.now() - hour), notAfterDate: new Date(Date.now() + 24 * 3650 * hour),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', digitalSignature: true, keyCertSign: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] },
    ],
  });
}

// serveAlone serves any number of relays on a socket that only this user, or
// whom mode lets in, can open. It finishes what it has in hand at SIGTERM.
async function serveAlone(forwarder, [, address, option, mode = '0600']) {
  const socket = address.replace(/^unix:\/\//, '');
  if (socket === address || !path.isAbsolute(socket)) throw new Error('--listen must be the absolute path of a socket, such as unix:///run/x.sock');
  if ((option !== undefined && option !== '--mode') || !/^0?[0-7]{3}$/.test(mode)) throw new Error('--mode must be octal permissions such as 0660');
  if (await answers(socket)) throw new Error(`another process listens on ${socket}`);
  if (fs.lstatSync(socket, { throwIfNoEntry: false })?.isSocket()) fs.unlinkSync(socket);
  const { server, drainAll } = build(forwarder);
  const umask = process.umask(0o777 & ~parseInt(mode, 8)); // so that nobody else gets in at any time
  await bind(server, `unix:${socket}`, grpc.ServerCredentials.createInsecure());
  process.umask(umask);
  log.info('serving', { address });
  const stop = async () => {
    setTimeout(() => process.exit(1), drainTime).unref();
    await drainAll();
    server.forceShutdown();
    process.exit(0);
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

// answers tells whether somebody listens on the socket.
function answers(socket) {
  return new Promise((resolve) => {
    const connection = net.connect(socket);
    connection.once('connect', () => resolve(connection.destroy() !== null));
    connection.once('error', () => resolve(false));
  });
}

function bind(server, address, credentials) {
  return new Promise((resolve, reject) => server.bindAsync(address, credentials, (err) => (err ? reject(err) : resolve())));
}

// The part of hashicorp/go-plugin that ends the process, by hand: both messages
// are empty.
const controller = {
  Shutdown: {
    path: '/plugin.GRPCController/Shutdown', requestStream: false, responseStream: false,
    requestSerialize: () => Buffer.alloc(0), requestDeserialize: () => ({}),
    responseSerialize: () => Buffer.alloc(0), responseDeserialize: () => ({}),
  },
};

// build makes the gRPC server with the forwarder's service in it.
function build(forwarder) {
  const definition = protoLoader.loadSync(fileURLToPath(new URL('forwarder.proto', import.meta.url)), {
    keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
  });
  const server = new grpc.Server({ 'grpc.max_receive_message_length': maxMessage, 'grpc.max_send_message_length': maxMessage });
  const { methods, drainAll } = instancesOf(forwarder);
  server.addService(definition['pimrelay.forwarder.v1.Forwarder'], methods);
  new HealthImplementation({ plugin: 'SERVING' }).addToServer(server);
  return { server, drainAll };
}

// instancesOf are the methods of the service, and what ends all forwarders that
// they have made.
function instancesOf(forwarder) {
  const instances = new Map(); // instance → { made, running }
  const description = {
    name: forwarder.name, version: forwarder.version, config_schema: Buffer.from(JSON.stringify(forwarder.configSchema)),
    capabilities: { batch: forwarder.batch, keeps_order: forwarder.keepsOrder ?? false, max_message_bytes: maxMessage },
  };
  const get = (name) => {
    const instance = instances.get(name);
    // ABORTED: the request has not been looked at.
    if (!instance) throw Object.assign(new Error('no such forwarder here: it was not configured, or has been closed'), { code: grpc.status.ABORTED });
    return instance;
  };
  const drain = async (name) => {
    const instance = instances.get(name);
    instances.delete(name); // takes no further calls
    if (!instance) return;
    await Promise.allSettled(instance.running);
    await instance.made.close();
  };
  const methods = {
    Describe: unary(async ({ instance }) => {
      if (instance) get(instance);
      return description;
    }),
    Configure: unary(async ({ instance, config, forwarder: name }) => {
      try {
        const made = await forwarder.configure(readConfig(config, forwarder.configSchema), logger({ forwarder: name }));
        drain(instance).catch((err) => log.warn('forwarder closed with an error', { err: err.message }));
        instances.set(instance, { made, running: new Set() });
        return {};
      } catch (err) {
        return { faults: err instanceof Faults ? err.list : [{ field: '', problem: err.message }] };
      }
    }),
    Deliver: unary(async ({ instance, events, timeout }, signal) => {
      const { made, running } = get(instance);
      for (const event of events) event.payload ??= event.body; // absent if that is what to forward
      const delivery = deliver(made, events, timeout, signal);
      running.add(delivery);
      try {
        return { outcomes: await delivery };
      } finally {
        running.delete(delivery);
      }
    }),
    Drain: unary(async ({ instance }) => {
      try {
        await drain(instance);
        return {};
      } catch (err) {
        return { problem: err.message };
      }
    }),
  };
  return { methods, drainAll: () => Promise.allSettled([...instances.keys()].map(drain)) };
}

// deliver delivers within the request's timeout. A forwarder that throws costs
// a retry of all its events, and the process goes on.
async function deliver(made, events, timeout, cancelled) {
  const end = new AbortController();
  const stop = () => end.abort();
  cancelled.addEventListener('abort', stop);
  const ms = timeout ? timeout.seconds * 1000 + timeout.nanos / 1e6 : Infinity;
  const timer = setTimeout(stop, Math.min(Math.max(ms, 0), 2 ** 31 - 1));
  try {
    return await made.deliver(events, end.signal);
  } catch (err) {
    log.error('the forwarder threw', { err: err.stack ?? String(err) });
    return events.map(() => retry(`the forwarder threw: ${err.message ?? err}`));
  } finally {
    clearTimeout(timer);
    cancelled.removeEventListener('abort', stop);
  }
}

// unary makes a method of an async function, which gets the request and a
// signal that is aborted when the relay has given up waiting.
function unary(handle) {
  return (call, callback) => {
    const end = new AbortController();
    call.on('cancelled', () => end.abort());
    handle(call.request, end.signal).then(
      (answer) => callback(null, answer),
      (err) => callback({ code: err.code ?? grpc.status.INTERNAL, details: err.message }));
  };
}

// logger writes JSON lines to standard error: the relay reads its plugins' logs
// there, with level and attributes.
function logger(attributes) {
  const levels = ['debug', 'info', 'warn', 'error'];
  const least = Math.max(levels.indexOf(process.env.PIMRELAY_LOG_LEVEL ?? 'info'), 0);
  const write = (level) => (msg, more) => {
    if (levels.indexOf(level) >= least) process.stderr.write(`${JSON.stringify({ time: new Date(), level, msg, ...attributes, ...more })}\n`);
  };
  return Object.fromEntries(levels.map((level) => [level, write(level)]));
}

const log = logger({});
