// What an application writes with Vue; `@ts-expect-error` marks what must not compile.
import {createApp, ref, type Component} from "vue";
import type {Member, Presence} from "flask-presence";
import {createPresence, useConnection, usePresence} from "flask-presence/vue";

type Info = {status?: string; x: number};

export function usage(component: Component, presence: Presence, room: () => string | undefined): void {
  createApp(component).use(createPresence(presence)).use(createPresence(() => presence));
  const info = ref<Info>({x: 1});
  const {members, me, state, error, send, update, on} = usePresence<Info>(room, info);
  const first: Member<Info> | undefined = members.value[0];
  const stop: () => void = on("message:typing", (data, {from}) => console.log(data.isTyping, from.userId?.length));
  on("updated", ({status}) => console.log(status?.toUpperCase()));
  on("gap", (messages) => console.log(messages.map(({id, data}) => id + data.text)));
  usePresence("presence-room", null, {history: 50});
  void send("typing").then(({delivered}) => delivered.toFixed());
  void update({status: null});
  console.log(first, stop, me.value?.x?.toFixed(), error.value?.code.length, useConnection().state.value === "connected");
  usePresence("presence-room", {status: "here"}).me.value?.status?.toUpperCase();

  // @ts-expect-error: no such state
  if (state.value === "closed") void update({});
  // @ts-expect-error: x is a number
  void update({x: "1"});
  // @ts-expect-error: no such event
  on("gone", () => {});
  // @ts-expect-error: x is missing
  usePresence<Info>("presence-room", {status: "here"});
  // @ts-expect-error: a URL is not a Presence
  createPresence("/presence/ws");
}
