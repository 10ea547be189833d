// What an application writes with React; `@ts-expect-error` marks what must not compile.
import type {Member, Presence} from "flask-presence";
import {PresenceProvider, useConnection, usePresence} from "flask-presence/react";

type Info = {status?: string; x: number};

export function Usage({presence, room}: {presence: Presence; room?: string}) {
  const {members, me, state, error, send, update, on} = usePresence<Info>(room, {x: 1});
  const first: Member<Info> | undefined = members[0];
  const x: number | undefined = me?.x;
  const stop: () => void = on("message:typing", (data, {from}) => console.log(data.isTyping, from.userId?.length));
  on("updated", ({status}) => console.log(status?.toUpperCase()));
  on("gap", (messages) => console.log(messages.map(({id, data}) => id + data.text)));
  usePresence("presence-room", null, {history: 50});
  void send("typing").then(({delivered}) => delivered.toFixed());
  void update({status: null});
  const connected: boolean = useConnection().state === "connected";
  console.log(first, x, stop, error?.code.length, state === "refused", connected);
  const other = usePresence("presence-room", {status: "here"}).me?.status?.toUpperCase();

  // @ts-expect-error: no such state
  if (state === "closed") void update({});
  // @ts-expect-error: x is a number
  void update({x: "1"});
  // @ts-expect-error: no such event
  on("gone", () => {});
  // @ts-expect-error: x is missing
  usePresence<Info>("presence-room", {status: "here"});
  // @ts-expect-error: this module does not set it
  console.log(window.Presence);
  return (
    <>
      <PresenceProvider presence={presence}>{other}</PresenceProvider>
      {/* @ts-expect-error: a URL is not a Presence */}
      <PresenceProvider presence="/presence/ws" />
    </>
  );
}
