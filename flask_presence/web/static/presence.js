/* The browser client of flask_presence: channels and their members, over one WebSocket that reconnects by itself.
 *
 * Rule: `members` is always the server's last list. Every request settles exactly once. After a reconnect, the
 * application gets the net changes only, and no message twice.
 */
var Presence = (() => {
  "use strict";

  const TIMEOUT = 10_000;
  const MAX_SILENCE = 30_000; // without a frame for this long, the client sends a ping
  const PROBE_TIMEOUT = 5_000; // for a ping after the network has changed
  const STABLE_AFTER = 5_000; // a connection that lasts this long resets the backoff
  const MIN_DELAY = 500;
  const MAX_DELAY = 30_000;
  const RESTART_SPREAD = 3_000;
  const GRACE = 8_000; // soon after a loss, PRESENCE_GRACE may keep us listed: retry faster
  const MAX_GRACE_DELAY = 2_000;
  const RATE_LIMIT_DELAY = 5_000;
  const MAX_KNOWN = 2_000; // message ids; no answer of the server has room for so many messages

  const GOING_AWAY = 1001;
  const LOST = 1006;
  const POLICY_VIOLATION = 1008;
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

  const ANSWERS = new Set(["channel:joined", "channel:left", "channel:sent", "channel:updated", "channel:history",
    "pong", "auth:ok", "error"]);
  const ROOM_FRAMES = new Set(["channel:updated", "channel:message", "channel:removed", "presence:member_joined",
    "presence:member_left", "presence:member_updated"]);
  const LEFT_CODES = new Set(["DISCONNECTED", "NOT_MEMBER", "NOT_FOUND"]);
  const NETWORK_EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

  const isTransient = ({code, retryable}) => retryable || code === "TIMEOUT" || code === "RATE_LIMIT_EXCEEDED";
  const backoff = (attempt, most = MAX_DELAY) => Math.random() * Math.min(most, MIN_DELAY * 2 ** attempt);
  const ignore = () => {};
  const newId = () => [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("");
  const toMessage = ({id, event, data, from, timestamp}) => ({id, event, data, from, timestamp});

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

    /* Returns whether there are handlers. */
    _emit(event, ...values) {
      const handlers = this.#handlers.get(event) ?? [];
      for (const handler of handlers) {
        try {
          handler(...values);
        } catch (problem) {
          reportError(problem); // as the browser does for event listeners; the other handlers still run
        }
      }
      return handlers.length > 0;
    }

    _emitMessage({data, ...details}) {
      this._emit("message", data, details);
      this._emit(`message:${details.event}`, data, details);
    }
  }

  /* A member has changed if this has. Neither a new connection of theirs nor another order of keys is a change. */
  const visibleState = ({clientId, joinedAt, updatedAt, ...info}) => JSON.stringify(info, sortKeys);
  const sortKeys = (_, value) =>
    value === Object(value) && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value;

  class Room extends Emitter {
    #presence;
    #info; // the userInfo of the next join
    #acceptedInfo; // the last one that the server accepted
    #memberId; // of our own entry in `members`
    #settleJoined;
    #retryTimer;
    #attempt = 0;
    #joinSent = false; // on this connection
    #isIn = false; // the server let us in, on this connection
    #isListed; // the page has a list, so the server's next one is a change of it
    #history; // how many kept messages the first join asks for
    #position; // the last place in the channel's order up to which we have everything, if the channel keeps messages
    #known = new Set(); // the ids of messages that the page knows, by `message`, `gap` or `send`
    #sends = new Set(); // without an outcome, in order

    constructor(presence, name, info, {members, history}) {
      super();
      this.#presence = presence;
      this.#info = info;
      this.name = name;
      this.members = members ?? [];
      this.#isListed = !!members;
      this.#history = history;
      this._resetJoined();
    }

    get me() {
      return this.members.find(({id}) => id === this.#memberId);
    }

    async send(event, data = null) {
      this.#checkAccess();
      const fields = JSON.parse(JSON.stringify({event, data})); // a repetition must not see later changes of `data`
      return new Promise((resolve, reject) => {
        const content = JSON.stringify([fields.event, fields.data]);
        const sending = {fields: {...fields, messageId: newId()}, content, clientIds: [], attempt: 0, resolve, reject};
        // It must not overtake what waits for the join.
        sending.isWaiting = !this.#isIn && [...this.#sends].some(({isWaiting}) => isWaiting);
        this.#sends.add(sending);
        if (!sending.isWaiting) {
          this.#transmit(sending);
        }
      });
    }

    async history({limit, before} = {}) {
      const {messages, more} = await this.#request("channel:history", {limit, before});
      return {messages: messages.map(toMessage), more};
    }

    async update(info) {
      const before = this.#info;
      this.#info = {...before, ...info};
      try {
        if (this.state === "joining") {
          await this.joined; // the pending join may have been sent without `info`
        }
        const {member} = await this.#request("channel:update", {userInfo: info});
        this.#acceptInfo();
        return member;
      } catch (problem) {
        if (!isTransient(problem)) {
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
      clearTimeout(this.#retryTimer);
      this.#presence._removeRoom(this);
      this.#setState("left");
      const leaving = this.#presence._leave(this.name);
      const problem = new PresenceError("LEFT", `${this.name} was left`);
      this.#settleJoined.reject(problem);
      this.#settleWaiting(() => false, problem);
      this.#clearMembers();
      await leaving;
    }

    /* A settled promise cannot stand for the next join. */
    _resetJoined() {
      this.joined = new Promise((resolve, reject) => (this.#settleJoined = {resolve, reject}));
      this.joined.catch(ignore); // the "error" event reports it too
      this.#setState("joining");
    }

    #setState(state) {
      this.state = state;
      this._emit("_state"); // private, for React and Vue
    }

    _update(info) {
      if (info) {
        this.#info = {...this.#info, ...info};
      }
      if (this.state === "refused") {
        this._resetJoined();
      }
    }

    _disconnected() {
      this.#joinSent = this.#isIn = false;
    }

    _connectionClosed(problem) {
      if (this.state === "joined") {
        this._resetJoined();
      }
      this.#settleJoined.reject(problem);
      this.#settleWaiting(() => false, problem);
      this.#clearMembers();
    }

    async _join() {
      clearTimeout(this.#retryTimer);
      if (this.state === "refused" || this.state === "left") {
        return;
      }
      this.#joinSent = true;
      const fields = {channel: this.name, userInfo: this.#info};
      if (!this.#isIn) {
        fields.since = this.#position;
        fields.history = this.#history;
      }
      try {
        // `_receive` handles the answer, in order with the events.
        await this.#presence._request("join", fields, {room: this});
        this.#attempt = 0;
      } catch (problem) {
        this.#joinFailed(problem);
      }
    }

    #joinFailed(problem) {
      const {code, retryable} = problem;
      if (this.state === "left" || (code === "DISCONNECTED" && retryable)) {
        return;
      }
      if (isTransient(problem)) {
        this.#joinSent = this.#isIn;
        this.#retryTimer = setTimeout(() => this._join(), 1000 + backoff(this.#attempt++));
        return;
      }
      this.#info = this.#acceptedInfo; // the next join must not be refused for the same reason
      if (!this.#isIn || code === "FORBIDDEN") { // else only the new userInfo was refused
        this.#refuse(problem);
      }
      this.#emitOrWarn("error", problem);
    }

    #refuse(problem) {
      this.#joinSent = this.#isIn = false;
      if (this.state === "joined") {
        this._resetJoined();
      }
      this.#setState("refused");
      this.#settleJoined.reject(problem);
      this.#settleWaiting(() => false, problem);
      this.#clearMembers();
    }

    #emitOrWarn(event, problem) {
      if (!this._emit(event, problem)) {
        console.warn(`${this.name}: ${problem.code}: ${problem.message}`);
      }
    }

    _receive(frame) {
      const {type, member} = frame;
      if (type === "channel:joined") {
        const wasIn = this.#isIn;
        this.#memberId = frame.me?.id;
        this.#isIn = true;
        this.#position = frame.position;
        this.#history = undefined;
        this.#acceptInfo();
        if (this.state === "refused") {
          this._resetJoined();
        }
        this.#setState("joined");
        this.#settleJoined.resolve(this);
        if (!wasIn) {
          this.#repeatWaiting(frame.recovered); // before handlers can send
        }
        this.#replaceMembers(frame.members ?? []);
        if (!wasIn) {
          this.#tellMissed(frame);
        }
      } else if (!this.#isIn) {
        return; // for a room of this name that was left
      } else if (type === "channel:message") {
        if (frame.id) {
          this.#position = frame.id;
          if (this.#isKnown(frame)) {
            return; // our own, from the connection before: it has reached the server late
          }
          this.#remember(frame.id);
        }
        this._emitMessage(toMessage(frame));
      } else if (type === "channel:removed") {
        const problem = new PresenceError(frame.code, frame.message);
        this.#refuse(problem);
        this.#emitOrWarn("removed", problem);
      } else if (type === "presence:member_joined") {
        this.#setMembers([...this.members.filter(({id}) => id !== member.id), member], "joined", member);
      } else if (type === "presence:member_left") {
        this.#setMembers(this.members.filter(({id}) => id !== member.id), "left", member);
      } else {
        const before = this.members.find(({id}) => id === member.id);
        const members = this.members.map((one) => (one.id === member.id ? member : one));
        if (JSON.stringify(before) !== JSON.stringify(member)) {
          this.#setMembers(members, "updated", member);
        }
      }
    }

    /* The server has our userInfo now. A key that it removed (null) need not be sent again. */
    #acceptInfo() {
      const kept = Object.entries(this.#info ?? {}).filter(([, value]) => value !== null);
      this.#acceptedInfo = this.#info = this.#info && Object.fromEntries(kept);
    }

    async #transmit(sending) {
      const {clientId, user} = this.#presence;
      sending.isWaiting = false;
      sending.userId = user?.id;
      sending.clientIds.push(clientId);
      try {
        const isRepeatable = this.#position && user;
        const {delivered, id} = await this.#request("channel:message", sending.fields, isRepeatable);
        if (id) {
          this.#remember(id); // no position: messages of others that come before it may still be on their way to us
        }
        sending.resolve(id ? {delivered, id} : {delivered});
      } catch (problem) {
        if (this.#mayRepeat(sending, problem)) {
          sending.isWaiting = true;
          sending.problem = problem;
          if (problem.code !== "DISCONNECTED") {
            const delay = 1000 + backoff(sending.attempt++);
            setTimeout(() => sending.isWaiting && this.#isIn && this.#transmit(sending), delay);
          }
          return;
        }
        sending.reject(problem);
      }
      this.#sends.delete(sending);
    }

    /* Once it is not known whether a message went out, any transient problem is a reason to send it again. */
    #mayRepeat(sending, problem) {
      const isLost = problem.code === "DISCONNECTED" && sending.userId; // the server knows repetitions by their user
      const isUnknown = problem.retryable && (isLost || problem.message === "Delivery unknown");
      return this.state === "joined" && this.#position && (isUnknown || (sending.problem && isTransient(problem)));
    }

    /* If something may be missing, so may be the message by which the server would know a repetition. */
    #repeatWaiting(recovered) {
      const {user} = this.#presence;
      this.#settleWaiting(({problem, userId}) => !problem || (recovered && userId && userId === user?.id));
    }

    /* Sends the waiting messages that pass a test, and rejects the others. */
    #settleWaiting(mayGo, problem) {
      for (const sending of [...this.#sends].filter(({isWaiting}) => isWaiting)) {
        if (mayGo(sending)) {
          this.#transmit(sending);
        } else {
          sending.isWaiting = false;
          this.#sends.delete(sending);
          sending.reject(sending.problem ?? problem);
        }
      }
    }

    /* Tells what came while we were away, or the messages that the first join asked for. */
    #tellMissed({messages = [], recovered}) {
      const unknown = messages.filter((message) => !this.#isKnown(message)).map(toMessage);
      unknown.forEach(({id}) => this.#remember(id));
      if (this.state === "left" || (recovered === false && this._emit("gap", unknown))) {
        return;
      }
      for (const message of unknown) {
        this._emitMessage(message);
        if (this.state === "left") {
          return;
        }
      }
    }

    /* Whether the page knows a message. It knows its own by `send`, also while that has no outcome yet. */
    #isKnown({id, event, data, from}) {
      if (this.#known.has(id)) {
        return true;
      }
      for (const sending of this.#sends) {
        const isOurs = !sending.isFound && sending.clientIds.includes(from.clientId);
        if (isOurs && sending.content === JSON.stringify([event, data])) {
          sending.isFound = true;
          return true;
        }
      }
      return false;
    }

    #remember(id) {
      this.#known.add(id);
      if (this.#known.size > MAX_KNOWN) {
        this.#known.delete(this.#known.values().next().value);
      }
    }

    #clearMembers() {
      this.#isListed = false;
      if (this.members.length) {
        this.members = [];
        this._emit("members", this.members);
      }
    }

    #setMembers(members, event, member) {
      this.members = members;
      this.#emitChanges([[event, member]]);
    }

    #replaceMembers(members) {
      const before = new Map(this.members.map((member) => [member.id, member]));
      const after = new Map(members.map((member) => [member.id, member]));
      const changes = [];
      if (this.#isListed) {
        changes.push(...[...before.values()].filter(({id}) => !after.has(id)).map((member) => ["left", member]));
        for (const [id, member] of after) {
          if (!before.has(id)) {
            changes.push(["joined", member]);
          } else if (visibleState(before.get(id)) !== visibleState(member)) {
            changes.push(["updated", member]);
          }
        }
      }
      this.members = members;
      this.#isListed = true;
      this.#emitChanges(changes);
    }

    #emitChanges(changes) {
      const {members} = this;
      for (const [event, member] of changes) {
        this._emit(event, member);
        if (this.members !== members) {
          return; // a handler left the room
        }
      }
      if (members.length) {
        this._emit("members", members);
      }
    }

    #checkAccess() {
      if (this.state === "left" || this.state === "refused") {
        throw new PresenceError("NOT_IN_CHANNEL", "You must join the channel first");
      }
      if (!this.#joinSent) {
        throw new PresenceError("DISCONNECTED", "The channel is not joined yet", {retryable: true});
      }
    }

    async #request(type, fields, isPatient) {
      this.#checkAccess();
      return this.#presence._request(type, {channel: this.name, ...fields}, {isPatient});
    }
  }

  class Presence extends Emitter {
    static Error = PresenceError;

    #url;
    #options;
    #socket;
    #rooms = new Map();
    #requests = new Map(); // by id, in order: the server answers in order
    #lastId = 0;
    #attempt = 0;
    #connectedAt = 0; // when the server sent `connected`
    #lostAt = 0; // when the last such connection ended
    #cookieRetry = ""; // after the end of a cookie login: "trying" once more, or "tried" lately
    #timer; // for the next attempt, or for the timeout of this one
    #silenceTimer;
    #lastFrameAt = 0;
    #closeCode; // of the last connection, while there is none

    constructor(url, options = {}) {
      super();
      this.#url = new URL(url, globalThis.location?.href);
      this.#url.protocol = this.#url.protocol.replace("http", "ws");
      this.#options = {...options, timeout: options.timeout ?? TIMEOUT};
      this.connect();
    }

    join(name, info, options = {}) {
      let room = this.#rooms.get(name);
      if (room) {
        if (!info && room.state !== "refused") {
          return room;
        }
        room._update(info);
      } else {
        room = new Room(this, name, info, options);
        this.#rooms.set(name, room);
      }
      if (this.state === "connected") {
        room._join();
      }
      return room;
    }

    connect() {
      if (this.state !== "connecting" && this.state !== "connected") {
        clearTimeout(this.#timer);
        this.#cookieRetry = "";
        if (this.state === "closed") {
          this.#rooms.forEach((room) => room.state === "joining" && room._resetJoined());
        }
        this.#open();
      }
      return this;
    }

    close() {
      this.#disconnect(1000);
      this.#setState("closed", {code: 1000, reason: ""});
    }

    async #open() {
      const attempt = (this.#socket = {close: ignore}); // a placeholder until there is a socket
      this.#timer = setTimeout(() => this.#lost(LOST), this.#options.timeout);
      this.#setState("connecting");
      const url = new URL(this.#url);
      let token;
      try {
        token = await this.#getToken();
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
        this.#disconnect(LOST);
        this.#setState("closed", {code: LOST, reason: ""});
        this._emit("error", new PresenceError("REFUSED", "The browser does not allow this connection", {cause}));
        return;
      }
      socket.onmessage = ({data}) => this.#receive(socket, JSON.parse(data), token);
      socket.onclose = ({code, reason}) => this.#lost(code, reason);
    }

    async #getToken() {
      const {token} = this.#options;
      return typeof token === "function" ? token() : token;
    }

    #receive(socket, frame, token) {
      this.#frameArrived();
      const {type, channel, requestId} = frame;
      if (type === "connected") {
        clearTimeout(this.#timer);
        this.#connectedAt = Date.now();
        this.clientId = frame.clientId;
        this.user = frame.user;
        if (this.#cookieRetry === "trying") {
          if (!frame.user) {
            this.#connectedAt = 0;
            this.#lost(TOKEN_ENDED, "Not logged in");
            return;
          }
          this.#cookieRetry = "tried";
        }
        this.#greeted(socket, token);
        return;
      }
      if (type === "channel:joined") {
        const room = this.#requests.get(requestId)?.room;
        if (room && room === this.#rooms.get(channel)) {
          room._receive(frame);
        }
      } else if (ROOM_FRAMES.has(type)) {
        this.#rooms.get(channel)?._receive(frame);
      } else if (type === "user:message") {
        const {event, data, timestamp} = frame;
        this._emitMessage({event, data, timestamp});
      } else if (type === "auth:expiring") {
        this.#renewToken();
      } else if (!ANSWERS.has(type)) {
        this._emit("broadcast", frame);
      }
      if (ANSWERS.has(type)) {
        this.#settleRequest(frame, requestId);
      }
    }

    #settleRequest(frame, id) {
      if (id === undefined && frame.code === "INVALID_JSON") {
        id = this.#requests.keys().next().value; // it has no id, but the server answers in order
      }
      const request = this.#requests.get(id);
      if (!request) {
        return; // not for a request of ours
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
        this.#rooms.forEach((room) => room._join()); // before handlers of "state" can send requests
        this.#setState("connected");
      }
    }

    async #authenticate(token) {
      this.user = (await this._request("auth", {token})).user;
    }

    async #renewToken() {
      const socket = this.#socket;
      if (typeof this.#options.token !== "function") {
        return; // there is no other token; the server closes when this one expires
      }
      try {
        const token = await this.#getToken();
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
      const lifetime = this.#connectedAt && Date.now() - this.#connectedAt;
      this.#disconnect(code, reason);
      this.#attempt = lifetime > STABLE_AFTER ? 0 : this.#attempt + 1;
      if (lifetime) {
        this.#lostAt = Date.now();
      }
      const {token} = this.#options;
      if (this.#cookieRetry === "trying") {
        code = TOKEN_ENDED;
      } else if (lifetime > 1000) {
        this.#cookieRetry = "";
      }
      const canRenew = typeof token === "function" || !(token || this.#cookieRetry);
      if (code === DISCONNECTED || (code === TOKEN_ENDED && !canRenew)) {
        this.#setState("closed", {code, reason});
        return;
      }
      let delay = backoff(this.#attempt, Date.now() - this.#lostAt < GRACE ? MAX_GRACE_DELAY : MAX_DELAY);
      if (code === GOING_AWAY) {
        delay = Math.random() * RESTART_SPREAD;
      } else if (code === POLICY_VIOLATION) {
        delay += RATE_LIMIT_DELAY;
      } else if (code === TOKEN_ENDED && !token) {
        this.#cookieRetry = "trying"; // the page may get a new cookie by other requests
        delay += 1000;
      } else if (code === TOKEN_ENDED && lifetime > STABLE_AFTER) {
        delay = 0;
      }
      this.#timer = setTimeout(() => this.#open(), delay);
      this.#setState("waiting", {code, reason, delay});
    }

    /* Drops the socket at once: without a network, its close event would take minutes. */
    #disconnect(code, reason = "") {
      const socket = this.#socket;
      this.#socket = undefined;
      this.#connectedAt = 0;
      this.clientId = undefined;
      clearTimeout(this.#timer);
      clearTimeout(this.#silenceTimer);
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
      this.#rooms.forEach((room) => room._disconnected());
    }

    #setState(state, details = {}) {
      if (state !== this.state) {
        this.state = state;
        this.#closeCode = details.code;
        this.#listenToNetwork(state === "closed" ? "removeEventListener" : "addEventListener");
        if (state === "closed") {
          const problem = new PresenceError("DISCONNECTED", `The connection is closed (${details.code})`);
          this.#rooms.forEach((room) => room._connectionClosed(problem));
        }
        this._emit("state", state, details);
      }
    }

    /* The page is visible again, or the network has changed: check the connection now. */
    #onNetworkEvent = ({type}) => {
      if (type === "visibilitychange" && document.hidden) {
        return;
      }
      if (this.state === "connected") {
        this.#probe(PROBE_TIMEOUT);
      } else if (this.state === "waiting" && this.#closeCode === LOST && type !== "offline") {
        this.connect();
      }
    };

    #listenToNetwork(method) {
      for (const event of NETWORK_EVENTS) {
        (event === "visibilitychange" ? globalThis.document : globalThis)?.[method]?.(event, this.#onNetworkEvent);
      }
    }

    #frameArrived() {
      this.#lastFrameAt = Date.now();
      clearTimeout(this.#silenceTimer);
      this.#silenceTimer = setTimeout(() => this.#probe(this.#options.timeout), MAX_SILENCE);
    }

    #probe(timeout) {
      const socket = this.#socket;
      const sentAt = Date.now();
      // The server answers in order, so a slow earlier request delays the pong.
      const wait = this.#requests.size ? this.#options.timeout : timeout;
      this._request("ping", {}, {timeout: wait}).catch(({code}) => {
        if (code === "TIMEOUT" && this.#socket === socket && this.#lastFrameAt < sentAt) {
          this.#lost(LOST);
        }
      });
    }

    /* A patient request waits for its answer as long as the connection lasts. */
    _request(type, fields, {room, timeout = this.#options.timeout, isPatient} = {}) {
      return new Promise((resolve, reject) => {
        if (!this.#connectedAt) {
          reject(new PresenceError("DISCONNECTED", "There is no connection", {retryable: true}));
          return;
        }
        const requestId = ++this.#lastId;
        this.#socket.send(JSON.stringify({type, ...fields, requestId}));
        const timer = setTimeout(() => {
          if (isPatient) {
            this.#probe(timeout);
            return;
          }
          // The entry keeps its place in the order, because its answer may still come.
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
          if (LEFT_CODES.has(problem.code)) {
            return; // we have left already, or were never in
          }
          if (!isTransient(problem)) {
            throw problem;
          }
        }
        await new Promise((resolve) => setTimeout(resolve, 1000 + backoff(attempt)));
        if (this.#rooms.has(channel)) {
          return; // joined again in the meantime
        }
      }
    }

    _removeRoom(room) {
      this.#rooms.delete(room.name);
    }
  }

  return Presence;
})();
