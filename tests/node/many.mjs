// Follows several streams on one connection with the product's own client. Prints one JSON line for each
// event.
import { Gateway } from '../../web/client.js';

const [url, key, ...ids] = process.argv.slice(2);
for await (const [stream, { id, type }] of new Gateway(url, { key }).followMany(ids)) {
  process.stdout.write(`${JSON.stringify({ stream, id, type })}\n`);
}
