// The forwarder: this file is yours to write. It posts each event to a URL.
//
// pimrelay.js calls configure once for each forwarder of the relay's
// configuration that uses this plugin, then deliver any number of times, also
// concurrently, and close at the end, when no deliver is running any more.
import { beginning, retryAfter } from './answer.js';
import { Faults, delivered, rejected, retry, throttled } from './pimrelay.js';

export const name = 'http-node';
export const version = '1.0.0';

// configSchema is the JSON Schema of the configuration. Keys that are not in
// it, missing ones and wrong types are refused before configure is called, and
// absent ones have their defaults there. Secrets are writeOnly, and have none.
export const configSchema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  additionalProperties: false,
  required: ['url'],
  properties: {
    url: { type: 'string', description: 'receives the events' },
    token: { type: 'string', writeOnly: true, description: 'sent as Authorization: Bearer' },
  },
};

// batch is the largest batch for one deliver. Without it there is one event a
// call.
export const batch = { max_events: 100, max_bytes: 8 << 20 };

// keepsOrder says that the events of a batch reach the destination in order.
export const keepsOrder = true;

// configure checks what a schema cannot, names the fields that are wrong, and
// does not dial: a destination that is away is no error of the configuration.
export function configure(config, log) {
  const faults = new Faults();
  const url = URL.canParse(config.url) ? new URL(config.url) : null;
  if (!url || !['http:', 'https:'].includes(url.protocol)) {
    faults.add('url', 'must be an absolute http or https URL, such as https://shop.example.com/hooks/akeneo');
  } else if (url.username || url.password) {
    faults.add('url', 'must hold no user name and no password, use token');
  }
  if (!/^[\x21-\x7e]*$/.test(config.token ?? '')) {
    faults.add('token', 'must be visible ASCII without spaces');
  }
  faults.throwIfAny();

  return {
    // deliver returns one outcome for each event, in the order of events. It
    // ends when signal is aborted, at the lane's timeout: what has not been
    // confirmed by then is a retry, and comes again.
    async deliver(events, signal) {
      const outcomes = [];
      for (const event of events) {
        const last = outcomes.at(-1);
        if (signal.aborted) {
          outcomes.push(retry('there was no time left to send it'));
        } else if (last?.result === 'RESULT_THROTTLED') {
          outcomes.push(last); // the destination asked for less
        } else {
          outcomes.push(await post(url, config.token, event, signal));
        }
      }
      return outcomes;
    },

    // close makes durable what was reported as delivered. Here it is so
    // already.
    async close() {
      log.debug('closed');
    },
  };
}

async function post(url, token, event, signal) {
  const headers = { 'User-Agent': 'pimrelay-http-node', 'Idempotency-Key': visible(event.idempotency_key) };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (event.content_type) headers['Content-Type'] = visible(event.content_type);
  let response;
  try {
    response = await fetch(url, {
      method: 'POST',
      headers,
      body: event.payload,
      redirect: 'manual', // a redirect could carry events and the token anywhere
      signal,
    });
  } catch (err) {
    return retry(signal.aborted ? 'no answer in time' : reasonOf(err));
  }
  let answer = await beginning(response);
  if (token) answer = answer.replaceAll(token, '[redacted]');
  const after = retryAfter(response.headers.get('retry-after'));
  const reason = `answered ${response.status}`;
  if (response.ok) return delivered();
  if (response.status === 429) return throttled(reason, after, answer);
  // What speaks of this one event is permanent. What speaks of the destination
  // would meet every event, and is retried until somebody has repaired it.
  const aboutDestination = [401, 402, 403, 404, 405, 407, 408, 409, 410, 421, 423, 425, 426];
  if (response.status >= 400 && response.status < 500 && !aboutDestination.includes(response.status)) {
    return rejected(reason, answer);
  }
  return retry(reason, after, answer);
}

// visible is text as it can stand in a header: it comes from outside.
function visible(text) {
  return /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) ? text : encodeURIComponent(text);
}

// reasonOf says why there is no answer, without the URL, which may hold secrets.
function reasonOf(err) {
  return `no answer: ${err.cause?.code ?? err.cause?.message ?? err.name}`;
}
