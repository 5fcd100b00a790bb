// What a program in TypeScript may do with the installed package, and what its compiler must refuse.
import { createElement, type ReactElement } from "react";
import { Gateway, Refused, type Result, type Saved, type StreamEvent } from "holdfast-client";
import { useHoldfastStream, type Status } from "holdfast-client/react";

export async function follow(saved: Saved): Promise<Result> {
  const stream = new Gateway("http://gateway", { key: "k" }).follow(saved, "", { onConnection: (open: boolean) => console.log(open) });
  stream.reconnect(20);
  return stream.result();
}

export function Answer({ gateway }: { gateway: Gateway | string }): ReactElement {
  const { id, text, stages, events, status, error, interrupts, start, resume, retry, cancel, reconnect } = useHoldfastStream(gateway, {
    key: "k",
    storageKey: "answer",
    storage: localStorage,
    onEvent: (event: StreamEvent) => console.log(event.type),
  });
  const now: Status = status;
  // @ts-expect-error it never has this status
  if (status === "over") return createElement("p");
  if (error instanceof Refused) return createElement("p", null, error.code);
  const answer = async (): Promise<string> => resume({ [interrupts[0].id]: true }, { goto: "last" });
  const ask = async (): Promise<string> => (await start({ user: "q", chain: "chat" })) + (await retry({ from: "chat" }));
  // @ts-expect-error it has a signal of its own
  const wrong = () => start({ user: "q", signal: AbortSignal.timeout(1) });
  // @ts-expect-error the stages are the hook's
  const also = () => stages.push(stages[0]);
  const said: string = stages.map((stage) => stage.text).join("") + events.map((event) => event.type).join("") + id + text + now;
  return createElement("button", { onClick: [answer, ask, cancel, reconnect, wrong, also][0] }, said);
}

// @ts-expect-error a gateway is needed
export const none = () => useHoldfastStream();
