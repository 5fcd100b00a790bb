// web/client.js at a gateway: node ask.mjs URL CALL [OPTIONS of Gateway, in JSON], where CALL is {"stream":
// …}, {"follow": [id, after]}, {"retry": [id, options]}, {"status": id} or {"cancel": id}, in JSON. Prints
// one JSON line for each event, then one with the result or the error. Its clock runs fifty times as fast as
// the gateway's, because the length of its pauses is not tested (fast.mjs).
import "./fast.mjs";
import { Gateway, GatewayError } from "../../web/client.js";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const [url, call, options = "{}"] = process.argv.slice(2);
const [[verb, given]] = Object.entries(JSON.parse(call));
const gateway = new Gateway(url, { silence: 3000, ...JSON.parse(options) });
try {
  if (verb === "status" || verb === "cancel") say({ result: await gateway[verb](given) });
  else {
    const stream = verb === "stream" ? gateway.stream(given) : gateway[verb](...given);
    for await (const { id, type, text, data } of stream) say({ event: { id, type, text, data }, stream: stream.id });
    say({ result: { ...await stream.result(), id: stream.id, cursor: stream.lastEventId } });
  }
} catch (error) {
  if (!(error instanceof GatewayError)) throw error;
  say({ error: { ...error, name: error.name, message: error.message } });
}
