/* flask_presence in the browser: channels and who is in them, over one WebSocket that comes back by itself.
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
  const EARLY = 8_000; // so soon after a loss the server may still keep our place: see PRESENCE_GRACE
  const EARLY_DELAY = 2_000;
  const PENALTY = 5_000;

  const GOING_AWAY = 1001;
  const LOST = 1006;
  const POLICY = 1008;
  const TOO_LARGE = 1009;
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
  const ROOM_FRAMES = new Set(["channel:updated", "channel:message", "channel:removed", "presence:member_joined",
    "presence:member_left", "presence:member_updated"]);
  const GONE = new Set(["DISCONNECTED", "NOT_MEMBER", "NOT_FOUND"]);
  const NETWORK_EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

  const passes = ({code, retryable}) => retryable || code === "TIMEOUT" || code === "RATE_LIMIT_EXCEEDED";
  const backoff = (attempt, most = MAX_DELAY) => Math.random() * Math.min(most, MIN_DELAY * 2 ** attempt);
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

    /* Whether anybody listens. */
    _emit(event, ...values) {
      const handlers = this.#handlers.get(event) ?? [];
      for (const handler of handlers) {
        try {
          handler(...values);
        } catch (problem) {
          reportError(problem); // as the browser treats an event listener: the others still hear of it
        }
      }
      return handlers.length > 0;
    }

    _emitMessage({data, ...about}) {
      this._emit("message", data, about);
      this._emit(`message:${about.event}`, data, about);
    }
  }

  /* What counts as a change of a member whom we could not watch: not with which connection they are here, or since when. */
  const face = ({clientId, joinedAt, updatedAt, ...shown}) =>
    JSON.stringify(Object.entries(shown).sort(([a], [b]) => (a < b ? -1 : 1)));

  class Room extends Emitter {
    #presence;
    #info; // what the next join brings
    #accepted; // the last of it that the server took
    #id; // of the own entry among the members
    #settle;
    #retry;
    #attempt = 0;
    #asked = false; // a join is on its way, or was answered, on this connection
    #inside = false; // it was answered well

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
      try {
        if (this.state === "joining") {
          await this.joined; // the join that is under way may have left without it
        }
        const {member} = await this.#ask("channel:update", {userInfo: info});
        this.#accept();
        return member;
      } catch (problem) {
        if (!passes(problem)) {
          for (const key of Object.keys(info)) {
            if (this.#info?.[key] === info[key]) {
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
      this.state = "left";
      clearTimeout(this.#retry);
      this.#presence._forget(this);
      const leaving = this.#presence._leave(this.name);
      this.#settle.reject(new PresenceError("LEFT", `${this.name} was left`));
      this.#clear();
      await leaving;
    }

    /* A promise that was kept, or broken, is not the one to wait for now. */
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

    _lost() {
      this.#asked = this.#inside = false;
    }

    _giveUp(problem) {
      if (this.state === "joined") {
        this._hope();
      }
      this.#settle.reject(problem);
      this.#clear();
    }

    async _enter() {
      clearTimeout(this.#retry);
      if (this.state === "refused" || this.state === "left") {
        return;
      }
      this.#asked = true;
      const fields = this.#info ? {channel: this.name, userInfo: this.#info} : {channel: this.name};
      try {
        // The answer is taken in by `_hear`, in its place among the events.
        await this.#presence._request("join", fields, this);
        this.#attempt = 0;
      } catch (problem) {
        this.#failed(problem);
      }
    }

    #failed(problem) {
      const {code, retryable} = problem;
      if (this.state === "left" || (code === "DISCONNECTED" && retryable)) {
        return;
      }
      if (passes(problem)) {
        this.#asked = this.#inside;
        this.#retry = setTimeout(() => this._enter(), 1000 + backoff(this.#attempt++));
        return;
      }
      this.#info = this.#accepted; // not to be refused for the same again
      if (!this.#inside || code === "FORBIDDEN") { // else we are in as before: only what this join brought was refused
        this.#refuse(problem);
      }
      this.#tellOf("error", problem);
    }

    #refuse(problem) {
      this.#asked = this.#inside = false;
      if (this.state === "joined") {
        this._hope();
      }
      this.state = "refused";
      this.#settle.reject(problem);
      this.#clear();
    }

    #tellOf(event, problem) {
      if (!this._emit(event, problem)) {
        console.warn(`${this.name}: ${problem.code}: ${problem.message}`);
      }
    }

    _hear(frame) {
      const {type, member} = frame;
      if (type === "channel:joined") {
        this.#id = frame.me?.id;
        this.#inside = true;
        this.#accept();
        if (this.state === "refused") {
          this._hope();
        }
        this.state = "joined";
        this.#settle.resolve(this);
        this.#replace(frame.members ?? []);
      } else if (!this.#inside) {
        return; // said to a room of this name that was left
      } else if (type === "channel:message") {
        const {event, data, from, timestamp} = frame;
        this._emitMessage({event, data, from, timestamp});
      } else if (type === "channel:removed") {
        const problem = new PresenceError(frame.code, frame.message);
        this.#refuse(problem);
        this.#tellOf("removed", problem);
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

    /* The server has what we asked for; keys that are gone need not be taken away again. */
    #accept() {
      const kept = Object.entries(this.#info ?? {}).filter(([, value]) => value !== null);
      this.#accepted = this.#info = this.#info && Object.fromEntries(kept);
    }

    #clear() {
      if (this.members.length) {
        this.members = [];
        this._emit("members", this.members);
      }
    }

    #change(members, event, member) {
      this.members = members;
      this.#tell([[event, member]]);
    }

    #replace(members) {
      const before = new Map(this.members.map((member) => [member.id, member]));
      const after = new Map(members.map((member) => [member.id, member]));
      const news = [];
      if (before.size) { // a first list is no news of anybody
        news.push(...[...before.values()].filter(({id}) => !after.has(id)).map((member) => ["left", member]));
        for (const [id, member] of after) {
          if (!before.has(id)) {
            news.push(["joined", member]);
          } else if (face(before.get(id)) !== face(member)) {
            news.push(["updated", member]);
          }
        }
      }
      this.members = members;
      this.#tell(news);
    }

    #tell(news) {
      const {members} = this;
      for (const [event, member] of news) {
        this._emit(event, member);
        if (this.members !== members) {
          return; // the handler has left the room
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
      if (!this.#asked) {
        return Promise.reject(new PresenceError("DISCONNECTED", "The channel is not joined yet", {retryable: true}));
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
    #lostAt = 0; // when a connection ended on which it had
    #cookie = ""; // the login by cookie has ended: "trying" once more, or "tried" lately
    #timer; // of the next connection, or of the patience with this one
    #silence;
    #heardAt = 0;
    #why; // the close code of the last connection, while there is none

    constructor(url, options = {}) {
      super();
      this.#url = new URL(url, globalThis.location?.href);
      this.#url.protocol = this.#url.protocol.replace("http", "ws");
      this.#options = {...options, timeout: options.timeout ?? TIMEOUT};
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
        this.#cookie = "";
        if (this.state === "closed") {
          this.#rooms.forEach((room) => room.state === "joining" && room._hope());
        }
        this.#open();
      }
      return this;
    }

    close() {
      this.#end(1000);
      this.#enter("closed", {code: 1000, reason: ""});
    }

    async #open() {
      const attempt = (this.#socket = {close: ignore}); // stands for the socket until there is one
      this.#timer = setTimeout(() => this.#lost(LOST), this.#options.timeout);
      this.#enter("connecting");
      const url = new URL(this.#url);
      let token;
      try {
        token = await this.#token();
      } catch (cause) {
        if (this.#socket === attempt) {
          this.#lost(LOST);
          this._emit("error", new PresenceError("TOKEN_FAILED", "The token function failed", {cause}));
        }
        return;
      }
      if (this.#socket !== attempt) {
        return;
      }
      const {auth} = this.#options;
      if (token && auth !== "message" && auth !== "protocol") {
        url.searchParams.set("token", token);
      }
      let socket;
      try {
        socket = this.#socket = new WebSocket(url, token && auth === "protocol" ? ["bearer", token] : []);
      } catch (cause) {
        this.#end(LOST);
        this.#enter("closed", {code: LOST, reason: ""});
        this._emit("error", new PresenceError("REFUSED", "The browser does not allow this connection", {cause}));
        return;
      }
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
        if (this.#cookie === "trying") {
          if (!frame.user) {
            this.#since = 0;
            this.#lost(TOKEN_ENDED, "Not logged in");
            return;
          }
          this.#cookie = "tried";
        }
        this.#greeted(socket, token);
        return;
      }
      if (type === "channel:joined") {
        const room = this.#requests.get(requestId)?.room;
        if (room && room === this.#rooms.get(channel)) {
          room._hear(frame);
        }
      } else if (ROOM_FRAMES.has(type)) {
        this.#rooms.get(channel)?._hear(frame);
      } else if (type === "user:message") {
        const {event, data, timestamp} = frame;
        this._emitMessage({event, data, timestamp});
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
        return; // not ours
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
            this.#lost(problem.code === "UNAUTHORIZED" ? TOKEN_ENDED : LOST, problem.message);
            this._emit("error", problem);
          }
          return;
        }
      }
      if (this.#socket === socket) {
        this.#rooms.forEach((room) => room._enter()); // before anything that a handler may ask of them
        this.#enter("connected");
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
        if (this.#socket === socket) {
          this._emit("error", new PresenceError("TOKEN_FAILED", "The token could not be renewed", {cause}));
        }
      }
    }

    #lost(code, reason = "") {
      const lived = this.#since && Date.now() - this.#since;
      this.#end(code, reason);
      this.#attempt = lived > STABLE ? 0 : this.#attempt + 1;
      if (lived) {
        this.#lostAt = Date.now();
      }
      const {token} = this.#options;
      if (this.#cookie === "trying") {
        code = TOKEN_ENDED;
      } else if (lived > 1000) {
        this.#cookie = "";
      }
      if (code === DISCONNECTED || (code === TOKEN_ENDED && typeof token !== "function" && (token || this.#cookie))) {
        this.#enter("closed", {code, reason});
        return;
      }
      let delay = backoff(this.#attempt, Date.now() - this.#lostAt < EARLY ? EARLY_DELAY : MAX_DELAY);
      if (code === GOING_AWAY) {
        delay = Math.random() * RESTART_SPREAD;
      } else if (code === POLICY) {
        delay += PENALTY;
      } else if (code === TOKEN_ENDED && !token) {
        this.#cookie = "trying"; // other requests of the page may have brought a new one, or will in a moment
        delay += 1000;
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
        const text = `The connection was lost (${code} ${reason || "no reason"})`;
        reject(new PresenceError("DISCONNECTED", text, {retryable: code !== TOO_LARGE}));
      }
      this.#rooms.forEach((room) => room._lost());
    }

    #enter(state, details = {}) {
      if (state !== this.state) {
        this.state = state;
        this.#why = details.code;
        this.#watch(state === "closed" ? "removeEventListener" : "addEventListener");
        if (state === "closed") {
          const problem = new PresenceError("DISCONNECTED", `The connection is closed (${details.code})`);
          this.#rooms.forEach((room) => room._giveUp(problem));
        }
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
      this.#heardAt = Date.now();
      clearTimeout(this.#silence);
      this.#silence = setTimeout(() => this.#probe(this.#options.timeout), SILENCE);
    }

    #probe(patience) {
      const socket = this.#socket;
      const asked = Date.now();
      // Answers come in order: behind a slow one, silence means nothing.
      this._request("ping", {}, undefined, this.#requests.size ? this.#options.timeout : patience).catch(({code}) => {
        if (code === "TIMEOUT" && this.#socket === socket && this.#heardAt < asked) {
          this.#lost(LOST);
        }
      });
    }

    _request(type, fields, room, timeout = this.#options.timeout) {
      return new Promise((resolve, reject) => {
        if (!this.#since) {
          reject(new PresenceError("DISCONNECTED", "There is no connection", {retryable: true}));
          return;
        }
        const requestId = ++this.#lastId;
        this.#socket.send(JSON.stringify({type, ...fields, requestId}));
        const timer = setTimeout(() => {
          // The entry stays, as its answer may still come, and answers are counted by their order.
          this.#requests.set(requestId, {resolve: ignore, reject: ignore});
          reject(new PresenceError("TIMEOUT", `The server has not answered within ${timeout} ms`, {retryable: true}));
        }, timeout);
        this.#requests.set(requestId, {resolve, reject, timer, room});
      });
    }

    async _leave(channel) {
      for (let attempt = 0; ; attempt++) {
        try {
          await this._request("leave", {channel});
          return;
        } catch (problem) {
          if (GONE.has(problem.code)) {
            return; // a connection that was lost has left, and so has one that was never in
          }
          if (!passes(problem)) {
            throw problem;
          }
        }
        await new Promise((resolve) => setTimeout(resolve, 1000 + backoff(attempt)));
        if (this.#rooms.has(channel)) {
          return; // joined again meanwhile
        }
      }
    }

    _forget(room) {
      this.#rooms.delete(room.name);
    }
  }

  return Presence;
})();
