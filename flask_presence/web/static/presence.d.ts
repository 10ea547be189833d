/** Channels and who is in them, over one WebSocket that comes back by itself. */

/** What an application says of a user: any JSON object. `null` removes a key. */
export type Info = Record<string, unknown>;

/** A user in a presence channel, listed once however many windows they have. */
export type Member<I extends object = Info> = {
  readonly id: string;
  readonly clientId: string;
  /** ISO 8601, UTC. */
  readonly joinedAt: string;
  readonly name: string;
  readonly avatar?: string;
  readonly updatedAt?: string;
} & Readonly<Partial<I>>;

/** Who a message is from: `clientId` is `"server"` for the server; `userId` is absent for an anonymous sender. */
export interface Sender {
  readonly clientId: string;
  readonly userId?: string;
}

export interface MessageDetails {
  readonly event: string;
  readonly from: Sender;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
}

/**
 * An error of the server's, by its code, or one of `DISCONNECTED`, `TIMEOUT`, `LEFT`, `TOKEN_FAILED`, `REFUSED`.
 */
export interface PresenceError extends Error {
  readonly code: string;
  /** Whether the same may succeed a little later. */
  readonly retryable: boolean;
}

/**
 * `connecting`; `connected`; `waiting` for the next attempt; `closed` for good, by `close()`, or because the server
 * said so: 4403 disconnected, 4401 a login that has ended and cannot be renewed.
 */
export type State = "connecting" | "connected" | "waiting" | "closed";

export interface StateDetails {
  /** The close code (RFC 6455; 1006 where there was none) of the connection that has ended. */
  readonly code?: number;
  readonly reason?: string;
  /** Milliseconds until the next attempt. */
  readonly delay?: number;
}

export interface Options {
  /**
   * Asked for every connection, and again before the token ends. Without it, the page's cookies speak, and are tried
   * once more when the login that they brought has ended.
   */
  token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  /**
   * `"query"` (default): as `?token=`; `"protocol"` (recommended): in a header, so that it stands in no URL and no
   * access log (not with gevent-websocket); `"message"`: as the first request, where the server lets anonymous
   * connections in to say it (`PRESENCE_AUTH_REQUIRED = False`).
   */
  auth?: "query" | "protocol" | "message";
  /** Milliseconds for a connection, the token included, or for an answer; 10000 by default. */
  timeout?: number;
}

/** A channel, from `Presence.join`. */
export interface Room<I extends object = Info> {
  readonly name: string;
  /**
   * `joined` also while the connection is away, and the members are the last known ones; `joining`, with no members,
   * once the connection is `closed`.
   */
  readonly state: "joining" | "joined" | "refused" | "left";
  /** Settles when the server has let us in, or refuses; a lost connection only delays it, a closed one rejects it. */
  readonly joined: Promise<Room<I>>;
  /** In order of joining; a new array at every change. Empty unless it is a presence channel. */
  readonly members: readonly Member<I>[];
  /** The own entry among `members`. */
  readonly me: Member<I> | undefined;

  /** Send to everybody else; `delivered` is the number of connections. */
  send(event: string, data?: unknown): Promise<{delivered: number}>;
  /** Change the own entry, also in what the next join brings. */
  update(info: {[K in keyof I]?: I[K] | null}): Promise<Member<I>>;
  leave(): Promise<void>;

  on(event: "joined" | "left" | "updated", handler: (member: Member<I>) => void): this;
  on(event: "members", handler: (members: readonly Member<I>[]) => void): this;
  /** The server has refused to let us in, now or after a reconnect. Without a handler it is a warning in the console. */
  on(event: "error", handler: (error: PresenceError) => void): this;
  /**
   * The server has taken us out (`REMOVED`), or its guard no longer lets us in (`FORBIDDEN`). We are not joined again
   * before `presence.join`. Without a handler it is a warning in the console.
   */
  on(event: "removed", handler: (why: PresenceError) => void): this;
  on(event: "message" | `message:${string}`, handler: (data: any, details: MessageDetails) => void): this;
  off(event: string, handler: (...values: any[]) => void): this;
}

/** What came for this user, and not to a channel. */
export interface UserMessageDetails {
  readonly event: string;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
}

export class Presence {
  /** Connects at once. `url` may be relative to the page. Throws `TypeError` for what is no URL. */
  constructor(url: string | URL, options?: Options);

  static readonly Error: new (code: string, message: string, options?: {retryable?: boolean; cause?: unknown}) => PresenceError;

  readonly state: State;
  /** `undefined` while there is no connection. */
  readonly clientId: string | undefined;
  /** `null` for anonymous. */
  readonly user: {readonly id: string} | null | undefined;

  /** The channel's one object, until it is left; joined again after every reconnect, with the last `info`. */
  join<I extends object = Info>(name: string, info?: I): Room<I>;
  /** Connect again after `closed`, or at once while `waiting`. */
  connect(): this;
  close(): void;

  on(event: "state", handler: (state: State, details: StateDetails) => void): this;
  /** A token that could not be had or that the server refused, or a connection that the browser forbids. */
  on(event: "error", handler: (error: PresenceError) => void): this;
  /** A message of the server's for this user, in whatever channels they are. */
  on(event: "message" | `message:${string}`, handler: (data: any, details: UserMessageDetails) => void): this;
  /** A frame of the server's own, as `broadcast_to_channel` sends it. */
  on(event: "broadcast", handler: (frame: any) => void): this;
  off(event: string, handler: (...values: any[]) => void): this;
}

export default Presence;

declare global {
  interface Window {
    Presence: typeof Presence;
  }
}
