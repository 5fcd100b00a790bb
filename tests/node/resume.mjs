// Follows a stream that asks, and answers it, with the product's own client. Prints a JSON line for each
// result.
import { Gateway } from '../../web/client.js';

const [url, given] = process.argv.slice(2);
const { chain, input, answers } = JSON.parse(given);
const gateway = new Gateway(url);
let stream = gateway.stream({ chain, input });
for (const answer of [...answers, undefined]) {
  const { interrupted, interrupts, text } = await stream.result();
  const seen = await gateway.follow(stream.id, stream.lastEventId).result();
  const same = seen.interrupted === interrupted && seen.interrupts.length === interrupts.length;
  process.stdout.write(`${JSON.stringify({ interrupted, asked: interrupts.map((one) => one.value), text, same })}\n`);
  if (answer !== undefined) stream = gateway.resume(stream.id, { [interrupts[0].id]: answer });
}
