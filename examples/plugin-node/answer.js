// What fetch's answers need, whoever the destination is: take this file as it is.

const longest = 64 << 10; // bytes that are read of an answer
const kept = 2048; // bytes of it that are returned
const patience = 1000; // milliseconds that it may take

// beginning reads an answer, so that its connection can be used again, and
// returns the start of it. Long and slow ones are cut off: the status counts.
export async function beginning(response) {
  if (!response.body) return '';
  const reader = response.body.getReader();
  const timer = setTimeout(() => reader.cancel().catch(() => {}), patience);
  const chunks = [];
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      chunks.push(part.value);
      length += part.value.length;
      if (length >= longest) await reader.cancel(); // and the next part is the end
    }
  } catch {
    // broken off
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks).subarray(0, kept).toString();
}

// retryAfter is the wait in milliseconds that a Retry-After header asks for, in
// either of its forms; 0 if it asks for none.
export function retryAfter(value) {
  const seconds = /^\d+$/.test(value ?? '') ? Number(value) : (Date.parse(value ?? '') - Date.now()) / 1000;
  return Number.isNaN(seconds) ? 0 : Math.min(Math.max(seconds, 0), 86_400) * 1000;
}
