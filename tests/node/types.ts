// What a program in TypeScript may do with web/client.js, and what its compiler must refuse.
import { Gateway, Refused, StreamEvent, type Result, type Stage, type Stream } from "../../web/client.js";

const gateway = new Gateway(new URL("http://gateway"), { key: "k", patience: 10, silence: 5, fetch });
const stream: Stream = gateway.stream({ messages: [{ role: "user", content: "q" }], signal: AbortSignal.timeout(1) });

export async function follow(): Promise<Result> {
  for await (const event of gateway.follow("id", "0-beef")) {
    const text: string = event.text;
    const final: boolean = event.final;
    console.log(text, final, event instanceof StreamEvent);
    // @ts-expect-error an event's type is a string
    const wrong: number = event.type;
  }
  const stages: Stage[] = stream.stages;
  console.log(stages[0].state === "finished", stream.lastEventId, (await gateway.status(stream.id)).status);
  // @ts-expect-error a stage is started or finished
  console.log(stages[0].state === "over");
  return stream.result();
}

export function told(error: unknown): number | undefined {
  // @ts-expect-error no field of that name
  gateway.stream({ question: "q" });
  // @ts-expect-error an id is needed
  gateway.cancel();
  return error instanceof Refused ? error.retryAfter : undefined;
}
