// Follows the feed with the product's own client until the given number of streams has ended. Prints one JSON
// line for each event.
import { Gateway } from '../../web/client.js';

const [url, key, ...ids] = process.argv.slice(2);
const left = new Set(ids);
for await (const { id, type, data } of new Gateway(url, { key }).feed()) {
  process.stdout.write(`${JSON.stringify({ stream: data.id, id, type })}\n`);
  if (type === 'ended') left.delete(data.id);
  if (!left.size) break;
}
