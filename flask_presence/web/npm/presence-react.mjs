"use client";
/* Channels in React components: `PresenceProvider` connects, `usePresence` joins. Importing this does nothing. */
import {createContext, createElement, useContext, useEffect, useId, useMemo, useSyncExternalStore} from "react";
import {Connection, INITIAL, OUTSIDE, UNCONNECTED} from "./presence-rooms.mjs";

const Context = createContext(undefined);
const nothing = () => {};

export function PresenceProvider({presence, children}) {
  const source = typeof presence === "function" ? null : presence; // an inline function is a new one at every render
  const connection = useMemo(() => new Connection(presence), [source]);
  useEffect(() => connection.open(), [connection]);
  return createElement(Context.Provider, {value: connection}, children);
}

export function usePresence(name, info, {history} = {}) {
  const connection = useProvided();
  const component = useId();
  const json = JSON.stringify(info ?? {});
  const {subscribe, read, readOnServer, ...actions} = useMemo(() => bind(connection, name), [connection, name]);
  const {error, ...shown} = useSyncExternalStore(subscribe, read, readOnServer);
  // A later change of `history` has no effect, because it is for the join.
  useEffect(() => (name ? connection.room(name).enter(component, history) : undefined), [connection, name, component]);
  useEffect(() => {
    if (name) {
      connection.room(name).tell(component, JSON.parse(json));
    }
  }, [connection, name, component, json]);
  return {
    ...shown,
    ...actions,
    get error() {
      connection.errorReaders.add(name);
      return error;
    },
  };
}

export function useConnection() {
  const connection = useProvided();
  return useSyncExternalStore(connection.subscribe, () => connection.snapshot, () => UNCONNECTED);
}

function useProvided() {
  const connection = useContext(Context);
  if (!connection) {
    throw new Error("There is no <PresenceProvider> around this component");
  }
  return connection;
}

/* Functions that stay the same until the channel changes. */
function bind(connection, name) {
  return {
    subscribe: (listener) => (name ? connection.room(name).subscribe(listener) : nothing),
    read: () => (name ? connection.peek(name) : OUTSIDE),
    readOnServer: () => (name ? INITIAL : OUTSIDE),
    send: (event, data) => connection.room(name).request("send", event, data),
    update: (info) => connection.room(name).request("update", info),
    on: (event, handler) => (name ? connection.room(name).on(event, handler) : nothing),
  };
}
