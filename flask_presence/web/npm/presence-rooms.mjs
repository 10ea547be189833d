/* The rooms that components share: a channel is joined with its first component and left with its last.
 *
 * Rule: what components ask for within one task reaches the server as one change. So React's StrictMode, which mounts
 * everything twice, and a component that replaces another cause no frames.
 */
import {Presence} from "./presence.mjs";

const RETRY_DELAY = 1000;

export const INITIAL = Object.freeze({members: Object.freeze([]), me: undefined, state: "joining", error: undefined});
export const OUTSIDE = Object.freeze({...INITIAL, state: "left"}); // of a component without a channel
export const UNCONNECTED = Object.freeze({state: "connecting", presence: undefined});

const isTransient = ({code, retryable}) => retryable || code === "TIMEOUT" || code === "RATE_LIMIT_EXCEEDED";
const isEmpty = (object) => !Object.keys(object).length;

class Observable {
  #listeners = new Set();

  subscribe = (listener) => {
    const own = () => listener(); // the same function may subscribe twice
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };

  _notify() {
    this.#listeners.forEach((listener) => listener());
  }

  get _isObserved() {
    return this.#listeners.size > 0;
  }
}

/* A channel, as its components see it. `snapshot` is a new object after each change. */
class SharedRoom extends Observable {
  snapshot = INITIAL;

  #connection;
  #name;
  #room;
  #error;
  #infos = new Map(); // by component, in order of mounting
  #told = new Map(); // what the server was told of #infos: JSON by key
  #handlers = new Set(); // of components: [event, handler]
  #ownHandlers = [
    ["_state", () => this.#stateChanged()],
    ["members", () => this.show()],
    ["error", (problem) => this.#failed(problem)],
    ["removed", (problem) => this.#failed(problem)],
  ];
  #history = new Map(); // by component: how many kept messages it would like to hear
  #hasNewComponent = false;
  #timer;

  constructor(connection, name) {
    super();
    this.#connection = connection;
    this.#name = name;
  }

  /* Returns a function that ends the component's stay. */
  enter(component, history) {
    this.#infos.set(component, {});
    this.#history.set(component, history);
    this.#hasNewComponent = true;
    this.#schedule();
    return () => {
      this.#infos.delete(component);
      this.#history.delete(component);
      this.#schedule();
    };
  }

  /* `info` replaces what the component told before. */
  tell(component, info) {
    this.#infos.set(component, info);
    this.#schedule();
  }

  /* Returns a function that removes the handler. */
  on(event, handler) {
    const entry = [event, (...values) => handler(...values)]; // the same function may be there twice
    this.#handlers.add(entry);
    this.#room?.on(...entry);
    return () => {
      this.#handlers.delete(entry);
      this.#room?.off(...entry);
    };
  }

  /* The answer to `send` or `update` of the room. */
  async request(method, ...values) {
    this.#settle();
    if (!this.#room) {
      throw new Presence.Error("NOT_IN_CHANNEL", "No component is in the channel");
    }
    return this.#room[method](...values);
  }

  #schedule(delay = 0) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#settle(), delay);
  }

  #settle() {
    clearTimeout(this.#timer);
    const isNew = this.#hasNewComponent;
    this.#hasNewComponent = false;
    if (!this.#infos.size) {
      this.#leave();
      return;
    }
    const wanted = Object.fromEntries([...this.#infos.values()].flatMap(Object.entries));
    const change = this.#untold(wanted);
    const state = this.#room?.state ?? "left";
    if (state === "left" || (state === "refused" && (isNew || !isEmpty(change)))) {
      this.#join({...change, ...wanted});
    } else if (state !== "refused" && !isEmpty(change)) {
      this.#update(this.#room, change);
    }
  }

  /* What the server does not know yet. A key that no component has any more is null. */
  #untold(wanted) {
    const change = {};
    for (const key of this.#told.keys()) {
      if (!Object.hasOwn(wanted, key)) {
        change[key] = null;
        this.#told.delete(key);
      }
    }
    for (const [key, value] of Object.entries(wanted)) {
      const json = JSON.stringify(value);
      if (this.#told.get(key) !== json) {
        change[key] = value;
        this.#told.set(key, json);
      }
    }
    return change;
  }

  #join(info) {
    const history = Math.max(0, ...[...this.#history.values()].filter(Boolean)) || undefined;
    const room = this.#connection.presence.join(this.#name, isEmpty(info) ? undefined : info, {history});
    if (room !== this.#room) {
      this.#detach();
      this.#room = room;
      [...this.#ownHandlers, ...this.#handlers].forEach((entry) => room.on(...entry));
    }
    this.show();
  }

  async #update(room, info) {
    try {
      await room.update(info);
      if (room === this.#room && this.#error) {
        this.#error = undefined;
        this.show();
      }
    } catch (problem) {
      if (room !== this.#room || (problem.code === "DISCONNECTED" && problem.retryable)) {
        return; // the next join tells it
      }
      if (isTransient(problem)) {
        this.#untell(info);
        this.#schedule(RETRY_DELAY);
      } else if (room.state === "joined") {
        this.#failed(problem);
      } else if (room.state === "joining") {
        this.#untell(info); // the connection is closed
      }
    }
  }

  #untell(info) {
    Object.keys(info).forEach((key) => this.#told.set(key, undefined));
  }

  #leave() {
    if (this.#room) {
      const room = this.#room;
      this.#detach();
      room.leave().catch(() => {}); // no component is left to hear of it
      this.#told.clear();
      this.#error = undefined;
      this.snapshot = INITIAL;
    }
    if (!this.#handlers.size && !this._isObserved) {
      this.#connection.forget(this.#name, this);
    }
  }

  #detach() {
    [...this.#ownHandlers, ...this.#handlers].forEach((entry) => this.#room?.off(...entry));
    this.#room = undefined;
  }

  #stateChanged() {
    if (this.#room?.state === "joining") {
      this.#error = undefined;
    } else if (this.#room?.state === "joined") {
      this.#schedule(); // something may be untold since the connection was closed
    }
    this.show();
  }

  #failed(problem) {
    const isHeard = [...this.#handlers].some(([event]) => event === "error" || event === "removed");
    if (!isHeard && !this.#connection.errorReaders.has(this.#name)) {
      console.warn(`${this.#name}: ${problem.code}: ${problem.message}`);
    }
    this.#error = problem;
    this.show();
  }

  show() {
    if (this.#room) { // else another handler of the same event has unmounted the last component
      const {members, me, state} = this.#room;
      const error = this.#error ?? (state === "joining" ? this.#connection.closed : undefined);
      this.snapshot = {members, me, state, error};
      this._notify();
    }
  }
}

/* A `Presence`, and the rooms of its components.
 *
 * `source` is a `Presence`, or a function that creates one. Such a function is called once a provider is mounted, never
 * while rendering, and what it created is closed with the last provider.
 */
export class Connection extends Observable {
  snapshot = UNCONNECTED;
  closed; // an error, while the connection is closed
  errorReaders = new Set(); // the channels whose `error` a component reads: no warning is needed there

  #source;
  #presence;
  #providers = 0;
  #rooms = new Map();

  constructor(source) {
    super();
    this.#source = source;
  }

  get presence() {
    if (!this.#presence) {
      this.#presence = typeof this.#source === "function" ? this.#source() : this.#source;
      this.#presence.on("state", this.#show);
      this.#show(this.#presence.state);
    }
    return this.#presence;
  }

  /* Returns a function that ends the provider's stay. */
  open() {
    this.#providers++;
    setTimeout(() => this.#settle());
    return () => {
      this.#providers--;
      setTimeout(() => this.#settle());
    };
  }

  /* Not for use while rendering, because a component may be rendered and never mounted. */
  room(name) {
    let room = this.#rooms.get(name);
    if (!room) {
      room = new SharedRoom(this, name);
      this.#rooms.set(name, room);
    }
    return room;
  }

  peek(name) {
    return this.#rooms.get(name)?.snapshot ?? INITIAL;
  }

  forget(name, room) {
    if (this.#rooms.get(name) === room) {
      this.#rooms.delete(name);
    }
  }

  #settle() {
    if (this.#providers) {
      return void this.presence;
    }
    this.#presence?.off("state", this.#show);
    if (typeof this.#source === "function") {
      this.#presence?.close();
    }
    this.#presence = undefined;
    this.snapshot = UNCONNECTED;
  }

  #show = (state, {code} = {}) => {
    const text = `The connection is closed${code ? ` (${code})` : ""}`;
    this.closed = state === "closed" ? new Presence.Error("DISCONNECTED", text) : undefined;
    this.snapshot = {state, presence: this.#presence};
    this._notify();
    this.#rooms.forEach((room) => room.show());
  };
}
