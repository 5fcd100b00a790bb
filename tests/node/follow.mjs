// Follows a URL with npm's `eventsource`, unmodified. Prints one JSON line for each event, and one for each
// connection. The package reconnects by itself. The script ends when a status other than 200 has stopped it.
// With a second argument its clock runs fifty times as fast.
import { EventSource } from 'eventsource';

const KINDS = ['message', 'start', 'stage', 'tool', 'custom', 'reset', 'done', 'failed', 'cancelled'];
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

if (process.argv[3]) await import('./fast.mjs');
const source = new EventSource(process.argv[2]);
source.addEventListener('open', () => say({ open: true }));
for (const kind of KINDS) {
  source.addEventListener(kind, (event) => say({ kind, id: event.lastEventId, data: event.data }));
}
source.addEventListener('error', (event) => {
  if (source.readyState === EventSource.CLOSED) say({ closed: event.code ?? null });
});
