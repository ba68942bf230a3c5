// What reads a forwarder's configuration: take this file as it is.

// Faults are all the things that are wrong in a configuration, so that a person
// sees them together. No problem quotes a value, which may be a secret.
export class Faults extends Error {
  list = [];

  add(field, problem) {
    this.list.push({ field, problem });
  }

  throwIfAny() {
    if (this.list.length > 0) throw this;
  }
}

// readConfig reads a configuration strictly: what the schema does not know is
// refused, and absent keys get their defaults. null is absent.
export function readConfig(bytes, schema) {
  const faults = new Faults();
  let config;
  try {
    config = JSON.parse(bytes.length > 0 ? bytes.toString() : '{}');
  } catch {
    faults.add('', 'must be one JSON object');
    throw faults;
  }
  const checked = check(config, schema, '', faults);
  faults.throwIfAny();
  return checked;
}

function check(value, schema, field, faults) {
  const type = Array.isArray(value) ? 'array' : Number.isInteger(value) ? 'integer' : typeof value;
  if (schema.type && schema.type !== type && !(schema.type === 'number' && type === 'integer')) {
    faults.add(field, `must be of the type ${schema.type} (got ${type})`);
    return value;
  }
  if (type === 'array' && schema.items) return value.map((item, i) => check(item, schema.items, `${field}[${i}]`, faults));
  if (type !== 'object' || !schema.properties) return value;
  const below = (key) => (field ? `${field}.${key}` : key);
  const checked = {};
  for (const [key, item] of Object.entries(value)) {
    if (item === null) continue;
    if (Object.hasOwn(schema.properties, key)) checked[key] = check(item, schema.properties[key], below(key), faults);
    else faults.add(below(key), `unknown key, known are ${Object.keys(schema.properties).sort().join(', ')}`);
  }
  for (const [key, property] of Object.entries(schema.properties)) {
    if (Object.hasOwn(checked, key)) continue;
    if (schema.required?.includes(key)) faults.add(below(key), 'is required');
    else if (property.default !== undefined) checked[key] = structuredClone(property.default);
  }
  return checked;
}
