// npm's `@modelcontextprotocol/sdk`, unmodified: node mcp.mjs URL TOOL ARGUMENTS [CANCEL_AT]. Prints a JSON
// line for each progress notification, then one with the version, the tools and the result, or the error.
// With CANCEL_AT the call is cancelled at that notification. Its clock runs fifty times as fast as the
// gateway's (fast.mjs).
import './fast.mjs';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const [url, name, given, cancelAt] = process.argv.slice(2);
const transport = new StreamableHTTPClientTransport(new URL(`${url}/mcp`));
const client = new Client({ name: 'test', version: '1' });
await client.connect(transport);
const giving = new AbortController();
const options = {
  timeout: 10 ** 7,
  signal: giving.signal,
  onprogress: (note) => {
    say({ note });
    if (note.progress === Number(cancelAt)) giving.abort('enough');
  },
};
try {
  const { tools } = await client.listTools();
  const result = await client.callTool({ name, arguments: JSON.parse(given) }, undefined, options);
  say({ version: transport.protocolVersion, tools: tools.map((tool) => tool.name), result });
} catch (error) {
  say({ error: error.name, message: error.message });
}
await client.close();
process.exit(0);
