/** The browser client of flask_presence: channels and their members, over one WebSocket that reconnects by itself. */

/** The `userInfo` of a member: any JSON object. `null` removes a key. */
export type Info = Record<string, unknown>;

/** A user in a presence channel, listed once even if they have several tabs open. */
export type Member<I extends object = Info> = {
  readonly id: string;
  readonly clientId: string;
  /** ISO 8601, UTC. */
  readonly joinedAt: string;
  readonly name: string;
  readonly avatar?: string;
  readonly updatedAt?: string;
} & Readonly<Partial<I>>;

/** The sender of a message. `clientId` is `"server"` for the server. `userId` is absent for an anonymous sender. */
export interface Sender {
  readonly clientId: string;
  readonly userId?: string;
}

export interface MessageDetails {
  /** Unique in its channel. Absent if the channel keeps no messages. */
  readonly id?: string;
  readonly event: string;
  readonly from: Sender;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
}

/** A message that a channel keeps. */
export interface Message extends MessageDetails {
  readonly id: string;
  /** Any JSON. */
  readonly data: any;
}

/**
 * An error. `code` is one of the server's error codes, or `DISCONNECTED`, `TIMEOUT`, `LEFT`, `TOKEN_FAILED` or
 * `REFUSED`.
 */
export interface PresenceError extends Error {
  readonly code: string;
  /** Whether the same request may succeed a little later. */
  readonly retryable: boolean;
}

/**
 * `waiting`: for the next attempt to connect. `closed`: for good, by `close()` or by the server. The server closes with
 * 4403 to disconnect the user, and with 4401 if the login has ended; the client stays closed if it cannot renew it.
 */
export type State = "connecting" | "connected" | "waiting" | "closed";

export interface StateDetails {
  /** The close code (RFC 6455) of the connection that has ended. 1006 if there was none. */
  readonly code?: number;
  readonly reason?: string;
  /** Milliseconds until the next attempt. */
  readonly delay?: number;
}

export interface Options {
  /**
   * A token, or a function that returns one. The client calls the function for each connection, and again before the
   * token expires. Without this option, the page's cookies are the login. If that login ends, the client tries the
   * cookies once more.
   */
  token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  /**
   * How the client sends the token. `"query"` (default): as `?token=`. `"protocol"` (recommended): in a header, so that
   * no URL and no access log contains it; not possible with gevent-websocket. `"message"`: as the first request, which
   * needs a server that accepts anonymous connections (`PRESENCE_AUTH_REQUIRED = False`).
   */
  auth?: "query" | "protocol" | "message";
  /** Milliseconds to wait for a connection, the token included, or for an answer. Default: 10000. */
  timeout?: number;
}

export interface JoinOptions {
  /**
   * The list that the page was rendered with. The room shows it until the server's list arrives, and then tells the
   * difference as `joined`, `left` and `updated`. Without effect if there is a room for the channel already.
   */
  members?: readonly Member<any>[];
  /**
   * How many kept messages the first join asks for, 1 to 1000. `message` handlers hear them before `joined` resolves.
   * Without effect if there is a room for the channel already, or if the channel keeps none.
   */
  history?: number;
}

/** A channel, as `Presence.join` returns it. */
export interface Room<I extends object = Info> {
  readonly name: string;
  /**
   * While the connection is lost, a room stays `joined` and keeps its last known members. Once the connection is
   * `closed`, it is `joining` and has no members.
   */
  readonly state: "joining" | "joined" | "refused" | "left";
  /** Resolves when the server lets us in. Rejects if it refuses, or if the connection is `closed`. */
  readonly joined: Promise<Room<I>>;
  /** In order of joining. Each change creates a new array. Always empty unless it is a presence channel. */
  readonly members: readonly Member<I>[];
  /** Our own entry in `members`. */
  readonly me: Member<I> | undefined;

  /**
   * Sends to everybody else in the channel. `delivered` is the number of connections. `id` is that of the message, if
   * the channel keeps it. Then a message without an answer is sent again after a reconnect, and goes out once.
   */
  send(event: string, data?: unknown): Promise<{delivered: number; id?: string}>;
  /**
   * A page of what the channel keeps: the newest `limit` messages (1 to 1000, default 50) before the one with the id
   * `before`, oldest first. `more`: older ones are kept.
   */
  history(options?: {limit?: number; before?: string}): Promise<{messages: Message[]; more: boolean}>;
  /** Changes our own entry, and the info for later joins. */
  update(info: {[K in keyof I]?: I[K] | null}): Promise<Member<I>>;
  leave(): Promise<void>;

  on(event: "joined" | "left" | "updated", handler: (member: Member<I>) => void): this;
  on(event: "members", handler: (members: readonly Member<I>[]) => void): this;
  /** The server refused to let us in, now or after a reconnect. Without a handler, the client logs a warning. */
  on(event: "error", handler: (error: PresenceError) => void): this;
  /**
   * The server removed us (`REMOVED`), or its guard no longer lets us in (`FORBIDDEN`). The client does not join again
   * by itself: call `presence.join`. Without a handler, it logs a warning.
   */
  on(event: "removed", handler: (reason: PresenceError) => void): this;
  /** After a reconnect, what was missed comes first, in order and once, if the channel keeps it. */
  on(event: "message" | `message:${string}`, handler: (data: any, details: MessageDetails) => void): this;
  /**
   * After a reconnect, messages may be missing, because the channel no longer keeps them. `messages` are the newest
   * that it keeps, at most 50, without those that the page knows. Without a handler, they come as `message` events.
   */
  on(event: "gap", handler: (messages: readonly Message[]) => void): this;
  off(event: string, handler: (...values: any[]) => void): this;
}

/** The details of a message that was sent to this user, not to a channel. */
export interface UserMessageDetails {
  readonly event: string;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
}

export class Presence {
  /** Connects at once. `url` may be relative to the page. Throws a `TypeError` if it is not a URL. */
  constructor(url: string | URL, options?: Options);

  static readonly Error: new (
    code: string, message: string, options?: {retryable?: boolean; cause?: unknown},
  ) => PresenceError;

  readonly state: State;
  /** `undefined` while there is no connection. */
  readonly clientId: string | undefined;
  /** `null` if we are anonymous. */
  readonly user: {readonly id: string} | null | undefined;

  /** Returns the same object until the channel is left. After each reconnect, it joins again with the last `info`. */
  join<I extends object = Info>(name: string, info?: I, options?: JoinOptions): Room<I>;
  /** Connects again after `closed`, or at once while `waiting`. */
  connect(): this;
  close(): void;

  on(event: "state", handler: (state: State, details: StateDetails) => void): this;
  /** The token function failed, the server refused the token, or the browser does not allow the connection. */
  on(event: "error", handler: (error: PresenceError) => void): this;
  /** A message from the server to this user, whatever channels they are in. */
  on(event: "message" | `message:${string}`, handler: (data: any, details: UserMessageDetails) => void): this;
  /** A JSON object that the server sent with `broadcast_to_channel`. */
  on(event: "broadcast", handler: (frame: any) => void): this;
  off(event: string, handler: (...values: any[]) => void): this;
}

export default Presence;

declare global {
  interface Window {
    Presence: typeof Presence;
  }
}
