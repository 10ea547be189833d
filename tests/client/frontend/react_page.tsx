// A page whose components a test chooses: `show` renders one component for each entry, in strict mode.
import {StrictMode, useEffect} from "react";
import {flushSync} from "react-dom";
import {createRoot, type Root} from "react-dom/client";
import {Presence, type Member} from "flask-presence";
import {PresenceProvider, useConnection, usePresence, type PresenceInChannel} from "flask-presence/react";

interface Info {
  status?: string;
  mood?: string;
}

interface Entry {
  id: string;
  name: string | null;
  info?: Info;
  ignoresError?: boolean;
  history?: number;
}

interface Page {
  show: (entries: Entry[] | null, own?: Presence) => void;
  connect: () => Presence;
  rendered?: {name: string; members: Member[]};
  rooms: Record<string, PresenceInChannel<Info>>;
  presence: Presence | undefined;
  created: number;
  renders: number;
  heard: unknown[];
}

const page = window as unknown as Page;
Object.assign(page, {rooms: {}, created: 0, renders: 0, heard: []});
const token = async () => (await fetch("/token", {method: "POST"})).text();

page.connect = () => {
  page.created += 1;
  const presence = new Presence("/presence/ws", {token, auth: "protocol"});
  if (page.rendered) {
    presence.join(page.rendered.name, {}, {members: page.rendered.members});
  }
  return presence;
};

function Part({id, name, info, ignoresError, history}: Entry) {
  const room = usePresence<Info>(name, info && {...info}, {history}); // new objects at every render
  const {members, me, state, on} = room;
  useEffect(() => on("message:typing", (data, {from}) => page.heard.push([id, data, from.userId])), [on, id]);
  useEffect(() => on("gap", (messages) => page.heard.push([id, messages.map(({data}) => data)])), [on, id]);
  useEffect(() => {
    page.rooms[id] = room;
    return () => void delete page.rooms[id];
  });
  page.renders += 1;
  const error = ignoresError ? undefined : room.error;
  return (
    <li id={id}>
      {[state, me?.id ?? "nobody", ...members.map((one) => `${one.id}:${one.status ?? ""}`), error?.code].join(" ")}
    </li>
  );
}

function Status() {
  const connection = useConnection();
  page.presence = connection.presence;
  return <p id="state">{connection.state}</p>;
}

let root: Root | undefined;
page.show = (entries, own) => {
  root ??= createRoot(document.getElementById("root")!);
  const components = entries && (
    <PresenceProvider presence={own ?? (() => page.connect())}>
      <Status />
      <ul>{entries.map((entry) => <Part key={entry.id} {...entry} />)}</ul>
    </PresenceProvider>
  );
  flushSync(() => root?.render(<StrictMode>{components}</StrictMode>));
};
