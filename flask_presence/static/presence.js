/* flask_presence in the browser: channels and who is in them, over one WebSocket that comes back by itself.
 *
 *   const presence = new Presence("/presence/ws", {token: () => fetchToken()});
 *   const room = presence.join("presence-room-1", {name: "Ann"});
 *   room.on("members", (members) => show(members));
 *
 * Law: what the server said last is what `members` holds; every request settles, once; after a connection was
 * lost the application hears what has changed, not how.
 */
var Presence = (() => {
  "use strict";

  const TIMEOUT = 10_000;
  const SILENCE = 30_000; // after so long without a frame, ask whether the server is still there
  const PROBE_PATIENCE = 5_000; // when the browser says that the network has changed
  const STABLE = 5_000; // a connection that lived so long has not failed
  const MIN_DELAY = 500;
  const MAX_DELAY = 30_000;
  const RESTART_SPREAD = 3_000;
  const PENALTY = 5_000;

  const GOING_AWAY = 1001;
  const LOST = 1006;
  const POLICY = 1008;
  const TOKEN_ENDED = 4401;
  const DISCONNECTED = 4403;

  class PresenceError extends Error {
    name = "PresenceError";

    constructor(code, message, options = {}) {
      super(message, options);
      this.code = code;
      this.retryable = options.retryable ?? false;
    }
  }

  const ANSWERS = new Set(
    ["channel:joined", "channel:left", "channel:sent", "channel:updated", "pong", "auth:ok", "error"]);
  const ROOM_FRAMES = new Set(["channel:joined", "channel:updated", "channel:message", "presence:member_joined",
    "presence:member_left", "presence:member_updated"]);
  const NETWORK_EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

  const passes = ({code, retryable}) => retryable || code === "TIMEOUT" || code === "RATE_LIMIT_EXCEEDED";
  const backoff = (attempt) => Math.random() * Math.min(MAX_DELAY, MIN_DELAY * 2 ** attempt);
  const ignore = () => {};

  class Emitter {
    #handlers = new Map();

    on(event, handler) {
      this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), handler]);
      return this;
    }

    off(event, handler) {
      this.#handlers.set(event, (this.#handlers.get(event) ?? []).filter((one) => one !== handler));
      return this;
    }

    _emit(event, ...values) {
      for (const handler of this.#handlers.get(event) ?? []) {
        try {
          handler(...values);
        } catch (problem) {
          reportError(problem); // as the browser treats an event listener: the others still hear of it
        }
      }
    }
  }

  /* What counts as a change of a member whom we could not watch: not with which connection they are here, or since when. */
  const face = ({clientId, joinedAt, updatedAt, ...shown}) =>
    JSON.stringify(Object.entries(shown).sort(([a], [b]) => (a < b ? -1 : 1)));

  class Room extends Emitter {
    #presence;
    #info;
    #id; // of the own entry among the members
    #settle;
    #retry;
    #attempt = 0;

    constructor(presence, name, info) {
      super();
      this.#presence = presence;
      this.#info = info;
      this.name = name;
      this.members = [];
      this._hope();
    }

    get me() {
      return this.members.find(({id}) => id === this.#id);
    }

    send(event, data = null) {
      return this.#ask("channel:message", {event, data}).then(({delivered}) => ({delivered}));
    }

    async update(info) {
      const before = this.#info;
      this.#info = {...before, ...info};
      if (this.state === "joining") {
        // The join that is under way may have left without it.
        await this.joined;
      }
      try {
        return (await this.#ask("channel:update", {userInfo: info})).member;
      } catch (problem) {
        if (!passes(problem)) {
          for (const key of Object.keys(info)) {
            if (this.#info[key] === info[key]) {
              this.#info = {...this.#info, [key]: before?.[key] ?? null};
            }
          }
        }
        throw problem;
      }
    }

    async leave() {
      if (this.state === "left") {
        return;
      }
      const inside = this.state !== "refused";
      this.state = "left";
      clearTimeout(this.#retry);
      this.#presence._forget(this);
      this.#settle.reject(new PresenceError("LEFT", `${this.name} was left`));
      this.#clear();
      if (inside) {
        await this.#presence._request("leave", {channel: this.name}).catch((problem) => {
          // Gone is gone: a connection that was lost has left, and so has one that had not joined yet.
          if (!["DISCONNECTED", "NOT_MEMBER", "NOT_FOUND"].includes(problem.code)) {
            throw problem;
          }
        });
      }
    }

    _hope() {
      this.state = "joining";
      this.joined = new Promise((resolve, reject) => (this.#settle = {resolve, reject}));
      this.joined.catch(ignore); // who does not wait for it hears of the "error" event
    }

    _again(info) {
      if (info) {
        this.#info = {...this.#info, ...info};
      }
      if (this.state === "refused") {
        this._hope();
      }
    }

    async _enter() {
      clearTimeout(this.#retry);
      if (this.state === "refused" || this.state === "left") {
        return;
      }
      const fields = this.#info ? {channel: this.name, userInfo: this.#info} : {channel: this.name};
      try {
        // The answer is taken in by `_hear`, in its place among the events.
        await this.#presence._request("join", fields);
        this.#attempt = 0;
      } catch (problem) {
        this.#failed(problem);
      }
    }

    #failed(problem) {
      if (this.state === "left" || problem.code === "DISCONNECTED") {
        return;
      }
      if (passes(problem)) {
        this.#retry = setTimeout(() => this._enter(), 1000 + backoff(this.#attempt++));
        return;
      }
      if (this.state === "joined") {
        this._hope(); // a promise that was kept cannot be broken: this is another one
      }
      this.state = "refused";
      this.#clear();
      this.#settle.reject(problem);
      this._emit("error", problem);
    }

    _hear(frame) {
      const {type, member} = frame;
      if (type === "channel:message") {
        const about = {event: frame.event, from: frame.from, timestamp: frame.timestamp};
        this._emit("message", frame.data, about);
        this._emit(`message:${frame.event}`, frame.data, about);
      } else if (type === "channel:joined") {
        this.#id = frame.me?.id;
        this.state = "joined";
        this.#settle.resolve(this);
        this.#replace(frame.members ?? []);
      } else if (type === "presence:member_joined") {
        this.#change([...this.members.filter(({id}) => id !== member.id), member], "joined", member);
      } else if (type === "presence:member_left") {
        this.#change(this.members.filter(({id}) => id !== member.id), "left", member);
      } else {
        const known = this.members.find(({id}) => id === member.id);
        const members = this.members.map((one) => (one.id === member.id ? member : one));
        if (JSON.stringify(known) !== JSON.stringify(member)) {
          this.#change(members, "updated", member);
        }
      }
    }

    #change(members, event, member) {
      this.members = members;
      this._emit(event, member);
      this._emit("members", members);
    }

    #clear() {
      if (this.members.length) {
        this.members = [];
        this._emit("members", this.members);
      }
    }

    #replace(members) {
      const before = new Map(this.members.map((member) => [member.id, member]));
      const after = new Map(members.map((member) => [member.id, member]));
      const first = !before.size;
      this.members = members;
      for (const [id, member] of before) {
        if (!after.has(id)) {
          this._emit("left", member);
        }
      }
      for (const [id, member] of after) {
        if (first) {
          break; // a first list is no news of anybody
        }
        if (!before.has(id)) {
          this._emit("joined", member);
        } else if (face(before.get(id)) !== face(member)) {
          this._emit("updated", member);
        }
      }
      if (members.length) {
        this._emit("members", members);
      }
    }

    #ask(type, fields) {
      if (this.state === "left" || this.state === "refused") {
        return Promise.reject(new PresenceError("NOT_IN_CHANNEL", "You must join the channel first"));
      }
      return this.#presence._request(type, {channel: this.name, ...fields});
    }
  }

  class Presence extends Emitter {
    static Error = PresenceError;

    #url;
    #options;
    #socket;
    #rooms = new Map();
    #requests = new Map(); // in order, as the server answers in order
    #lastId = 0;
    #attempt = 0;
    #since = 0; // when the server greeted
    #timer; // of the next connection, or of the patience with this one
    #silence;
    #why; // the close code of the last connection, while there is none

    constructor(url, options = {}) {
      super();
      this.#url = new URL(url, globalThis.location?.href);
      this.#url.protocol = this.#url.protocol.replace("http", "ws");
      this.#options = {timeout: TIMEOUT, ...options};
      this.connect();
    }

    join(name, info) {
      let room = this.#rooms.get(name);
      if (room) {
        if (!info && room.state !== "refused") {
          return room;
        }
        room._again(info);
      } else {
        room = new Room(this, name, info);
        this.#rooms.set(name, room);
      }
      if (this.state === "connected") {
        room._enter();
      }
      return room;
    }

    connect() {
      if (this.state !== "connecting" && this.state !== "connected") {
        clearTimeout(this.#timer);
        this.#open();
      }
      return this;
    }

    close() {
      this.#end(1000);
      this.#enter("closed", {code: 1000, reason: ""});
    }

    async #open() {
      this.#enter("connecting");
      const attempt = (this.#socket = {close: ignore}); // stands for the socket until there is one
      const url = new URL(this.#url);
      let token;
      try {
        token = await this.#token();
      } catch (cause) {
        if (this.#socket === attempt) {
          this._emit("error", new PresenceError("TOKEN_FAILED", "The token function failed", {cause}));
          this.#lost(LOST);
        }
        return;
      }
      if (this.#socket !== attempt) {
        return;
      }
      if (token && this.#options.auth !== "message") {
        url.searchParams.set("token", token);
      }
      let socket;
      try {
        socket = this.#socket = new WebSocket(url);
      } catch (cause) {
        this.#end(LOST);
        this._emit("error", new PresenceError("REFUSED", "The browser does not allow this connection", {cause}));
        this.#enter("closed", {code: LOST, reason: ""});
        return;
      }
      this.#timer = setTimeout(() => this.#lost(LOST), this.#options.timeout);
      socket.onmessage = ({data}) => this.#receive(socket, JSON.parse(data), token);
      socket.onclose = ({code, reason}) => this.#lost(code, reason);
    }

    async #token() {
      const {token} = this.#options;
      return typeof token === "function" ? token() : token;
    }

    #receive(socket, frame, token) {
      this.#listen();
      const {type, channel, requestId} = frame;
      if (type === "connected") {
        clearTimeout(this.#timer);
        this.#since = Date.now();
        this.clientId = frame.clientId;
        this.user = frame.user;
        this.#greeted(socket, token);
        return;
      }
      if (ROOM_FRAMES.has(type)) {
        this.#rooms.get(channel)?._hear(frame);
      } else if (type === "auth:expiring") {
        this.#refresh();
      } else if (!ANSWERS.has(type)) {
        this._emit("broadcast", frame);
      }
      if (ANSWERS.has(type)) {
        this.#answered(frame, requestId);
      }
    }

    #answered(frame, id) {
      if (id === undefined && frame.code === "INVALID_JSON") {
        id = this.#requests.keys().next().value; // it cannot say whose it is, but answers come in order
      }
      const request = this.#requests.get(id);
      if (!request) {
        return; // it came too late
      }
      this.#requests.delete(id);
      clearTimeout(request.timer);
      if (frame.type === "error") {
        request.reject(new PresenceError(frame.code, frame.message, {retryable: frame.retryable}));
      } else {
        request.resolve(frame);
      }
    }

    async #greeted(socket, token) {
      if (token && this.#options.auth === "message") {
        try {
          await this.#authenticate(token);
        } catch (problem) {
          if (this.#socket === socket) {
            this._emit("error", problem);
            this.#lost(passes(problem) ? LOST : TOKEN_ENDED, problem.message);
          }
          return;
        }
      }
      if (this.#socket === socket) {
        const rooms = [...this.#rooms.values()]; // those that a handler adds now enter by themselves
        this.#enter("connected");
        rooms.forEach((room) => room._enter());
      }
    }

    async #authenticate(token) {
      this.user = (await this._request("auth", {token})).user;
    }

    async #refresh() {
      const socket = this.#socket;
      if (typeof this.#options.token !== "function") {
        return; // there is no other; the server ends the connection when this one ends
      }
      try {
        const token = await this.#token();
        if (token && this.#socket === socket) {
          await this.#authenticate(token);
        }
      } catch (cause) {
        this._emit("error", new PresenceError("TOKEN_FAILED", "The token could not be renewed", {cause}));
      }
    }

    #lost(code, reason = "") {
      const lived = this.#since && Date.now() - this.#since;
      this.#end(code, reason);
      this.#attempt = lived > STABLE ? 0 : this.#attempt + 1;
      const renewable = typeof this.#options.token === "function";
      if (code === DISCONNECTED || (code === TOKEN_ENDED && !renewable)) {
        this.#enter("closed", {code, reason});
        return;
      }
      let delay = backoff(this.#attempt);
      if (code === GOING_AWAY) {
        delay = Math.random() * RESTART_SPREAD;
      } else if (code === POLICY) {
        delay += PENALTY;
      } else if (code === TOKEN_ENDED && lived > STABLE) {
        delay = 0;
      }
      this.#timer = setTimeout(() => this.#open(), delay);
      this.#enter("waiting", {code, reason, delay});
    }

    /* Let go of the socket at once: one without a network would take minutes to notice its own end. */
    #end(code, reason = "") {
      const socket = this.#socket;
      this.#socket = undefined;
      this.#since = 0;
      this.clientId = undefined;
      clearTimeout(this.#timer);
      clearTimeout(this.#silence);
      if (socket) {
        socket.onmessage = socket.onclose = null;
        socket.close(1000);
      }
      const requests = [...this.#requests.values()];
      this.#requests.clear();
      for (const {reject, timer} of requests) {
        clearTimeout(timer);
        reject(new PresenceError("DISCONNECTED", `The connection was lost (${code} ${reason || "no reason"})`, {retryable: true}));
      }
    }

    #enter(state, details = {}) {
      if (state !== this.state) {
        this.state = state;
        this.#why = details.code;
        this.#watch(state === "closed" ? "removeEventListener" : "addEventListener");
        this._emit("state", state, details);
      }
    }

    /* The page is seen again, or the network has changed: find out now, not in half a minute. */
    #look = ({type}) => {
      if (type === "visibilitychange" && document.hidden) {
        return;
      }
      if (this.state === "connected") {
        this.#probe(PROBE_PATIENCE);
      } else if (this.state === "waiting" && this.#why === LOST && type !== "offline") {
        this.connect();
      }
    };

    #watch(method) {
      for (const event of NETWORK_EVENTS) {
        (event === "visibilitychange" ? globalThis.document : globalThis)?.[method]?.(event, this.#look);
      }
    }

    #listen() {
      clearTimeout(this.#silence);
      this.#silence = setTimeout(() => this.#probe(this.#options.timeout), SILENCE);
    }

    #probe(patience) {
      const socket = this.#socket;
      this._request("ping", {}, patience).catch(({code}) => {
        if (code === "TIMEOUT" && this.#socket === socket) {
          this.#lost(LOST);
        }
      });
    }

    _request(type, fields, timeout = this.#options.timeout) {
      return new Promise((resolve, reject) => {
        if (!this.#since) {
          reject(new PresenceError("DISCONNECTED", "There is no connection", {retryable: true}));
          return;
        }
        const requestId = ++this.#lastId;
        this.#socket.send(JSON.stringify({type, ...fields, requestId}));
        const timer = setTimeout(() => {
          this.#requests.delete(requestId);
          reject(new PresenceError("TIMEOUT", `The server has not answered within ${timeout} ms`, {retryable: true}));
        }, timeout);
        this.#requests.set(requestId, {resolve, reject, timer});
      });
    }

    _forget(room) {
      this.#rooms.delete(room.name);
    }
  }

  return Presence;
})();
