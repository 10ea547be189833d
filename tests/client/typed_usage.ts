// What an application writes in TypeScript; `@ts-expect-error` marks what must not compile.
import Default, {Presence, type Member, type Message, type Room} from "../../flask_presence/web/static/presence.js";

const presence: Presence = new Default("/presence/ws", {
  token: async () => (await fetch("/token")).text(),
  auth: "message",
  timeout: 5000,
});
presence
  .on("state", (state, {code, delay}) => console.log(state === "waiting" ? delay?.toFixed() : code?.toFixed()))
  .on("error", ({code, retryable}) => console.log(code.length, !retryable))
  .on("broadcast", (frame) => console.log(frame.type));

type Info = {status?: string; x: number};
const room: Room<Info> = presence.join("presence-room", {status: "here", x: 1} as Info);
room
  .on("members", (members) => console.log(members.map(({name, status}) => `${name} ${status?.toUpperCase()}`)))
  .on("joined", (member: Member<Info>) => console.log(member.joinedAt.slice(0, 10)))
  .on("message:typing", (data, {id, from, timestamp}) => console.log(data.isTyping, id?.length, from.userId, timestamp))
  .on("gap", (messages: readonly Message[]) => console.log(messages.map(({id, data, event}) => id + event + data.text)));

async function talk(): Promise<number> {
  await room.joined;
  const {delivered, id} = await room.send("typing", {isTyping: true});
  const {messages, more} = await room.history({limit: 10, before: id});
  (more ? messages[0]?.from.userId : (await room.history()).messages[0]?.timestamp) satisfies string | undefined;
  const me: Member<Info> = await room.update({status: null});
  await room.leave();
  window.Presence satisfies typeof Presence;
  return delivered + (me.x ?? 0);
}

presence.join<Info>("presence-room", undefined, {members: JSON.parse("[]")}).members satisfies readonly Member<Info>[];
presence.join("presence-room", {status: "here", x: 1}, {members: room.members}).me?.status satisfies string | undefined;
presence.join("presence-room", {}, {history: 50});

// @ts-expect-error: history is a number
presence.join("presence-room", {}, {history: "50"});
// @ts-expect-error: a member has an id
presence.join("presence-room", {}, {members: [{name: "Ann"}]});
// @ts-expect-error: no such option
presence.join("presence-room", {}, {member: []});
// @ts-expect-error: no such state
if (presence.state === "gone") void talk();
// @ts-expect-error: the list is the client's own
room.members.push({});
// @ts-expect-error: x is a number
void room.update({x: "1"});
// @ts-expect-error: a message has no id in a channel that keeps none
room.on("message", (_, {id}) => id.length);
// @ts-expect-error: no such event
room.on("gone", () => {});
presence.close();
