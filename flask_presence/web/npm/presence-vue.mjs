/* Channels in Vue components: the plugin connects, `usePresence` joins. Importing this does nothing. */
import {computed, inject, onMounted, onUnmounted, shallowRef, toValue, watch} from "vue";
import {Connection, INITIAL, OUTSIDE} from "./presence-rooms.mjs";

const KEY = Symbol("presence");

export function createPresence(presence) {
  return {
    install(app) {
      const connection = new Connection(presence);
      app.provide(KEY, connection);
      const {mount, unmount} = app;
      let close;
      app.mount = (...values) => {
        close ??= connection.open();
        return mount(...values);
      };
      app.unmount = () => {
        unmount();
        close?.();
      };
    },
  };
}

export function usePresence(name, info, {history} = {}) {
  const connection = useProvided();
  const component = Symbol("component");
  const snapshot = shallowRef(toValue(name) ? INITIAL : OUTSIDE);
  const handlers = new Set(); // objects {event, handler, remove}
  let room;
  let leave = () => {};

  const infoJson = () => JSON.stringify(toValue(info) ?? {});
  const tell = () => room?.tell(component, JSON.parse(infoJson()));
  const listen = (one) => (one.remove = room?.on(one.event, one.handler));
  const show = () => (snapshot.value = room?.snapshot ?? OUTSIDE);
  const move = (channel) => {
    leave();
    room = channel ? connection.room(channel) : undefined;
    const stops = room ? [room.subscribe(show), room.enter(component, history)] : [];
    handlers.forEach(listen);
    tell();
    show();
    leave = () => {
      [...stops, ...[...handlers].map(({remove}) => remove)].forEach((stop) => stop?.());
      room = undefined;
    };
  };
  onMounted(() => {
    watch(() => toValue(name), move, {immediate: true, flush: "post"});
    watch(infoJson, tell, {flush: "post"});
  });
  onUnmounted(() => leave());

  const request = (method, ...values) => connection.room(toValue(name)).request(method, ...values);
  return {
    members: computed(() => snapshot.value.members),
    me: computed(() => snapshot.value.me),
    state: computed(() => snapshot.value.state),
    error: computed(() => {
      connection.errorReaders.add(toValue(name));
      return snapshot.value.error;
    }),
    send: (event, data) => request("send", event, data),
    update: (change) => request("update", change),
    on: (event, handler) => {
      const one = {event, handler};
      handlers.add(one);
      listen(one);
      return () => {
        handlers.delete(one);
        one.remove?.();
      };
    },
  };
}

export function useConnection() {
  const connection = useProvided();
  const snapshot = shallowRef(connection.snapshot);
  const show = () => (snapshot.value = connection.snapshot);
  let stop;
  onMounted(() => {
    stop = connection.subscribe(show);
    show();
  });
  onUnmounted(() => stop?.());
  return {state: computed(() => snapshot.value.state), presence: computed(() => snapshot.value.presence)};
}

function useProvided() {
  const connection = inject(KEY, undefined);
  if (!connection) {
    throw new Error("The app has no presence: call app.use(createPresence(…)) before app.mount(…)");
  }
  return connection;
}
