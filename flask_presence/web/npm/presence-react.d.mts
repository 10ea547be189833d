/** Channels in React components: `PresenceProvider` connects, `usePresence` joins. Importing this does nothing. */
import type {ReactElement, ReactNode} from "react";
import type {
  Info, JoinOptions, Member, Message, MessageDetails, Presence, PresenceError, Room, State,
} from "./presence.mjs";

export interface PresenceProviderProps {
  /**
   * A function that creates the `Presence`. It is called in the browser only, once the provider is mounted; its later
   * values are ignored. The provider closes the `Presence` when it is unmounted.
   *
   * Or a `Presence` of your own, which the provider does not close.
   */
  presence: Presence | (() => Presence);
  children?: ReactNode;
}

/** Connects once it is mounted. The components inside share the connection. */
export function PresenceProvider(props: PresenceProviderProps): ReactElement;

/** Each returns a function that removes the handler, so that an effect can return it. */
export interface On<I extends object = Info> {
  (event: "joined" | "left" | "updated", handler: (member: Member<I>) => void): () => void;
  (event: "members", handler: (members: readonly Member<I>[]) => void): () => void;
  (event: "error" | "removed", handler: (error: PresenceError) => void): () => void;
  (event: "message" | `message:${string}`, handler: (data: any, details: MessageDetails) => void): () => void;
  (event: "gap", handler: (messages: readonly Message[]) => void): () => void;
}

/** A channel, as `usePresence` returns it. `send`, `update` and `on` are the same functions until the name changes. */
export interface PresenceInChannel<I extends object = Info> {
  /** In order of joining. Each change creates a new array. Always empty unless it is a presence channel. */
  readonly members: readonly Member<I>[];
  /** Our own entry in `members`. */
  readonly me: Member<I> | undefined;
  /** `left` without a channel. */
  readonly state: Room["state"];
  /**
   * Why the server refused us, removed us, or did not accept our info; `DISCONNECTED` while the connection is `closed`.
   * `undefined` once we are joining again. If no component reads it, and no handler listens, a refusal is logged as a
   * warning.
   */
  readonly error: PresenceError | undefined;
  readonly send: Room<I>["send"];
  readonly update: Room<I>["update"];
  readonly on: On<I>;
}

/**
 * Joins a channel while the component is mounted. Components with the same channel share the room, and the last of them
 * leaves it. Another `name` moves to that channel; `null` means none.
 *
 * `info` is what the component tells the others about its user. It is compared by its JSON: a changed key is an update,
 * and a key that is gone is removed.
 *
 * `options.history` is how many kept messages the join asks for: `message` handlers hear them. If several components
 * share the room when it is joined, the largest number counts.
 */
export function usePresence<I extends object = Info>(
  name: string | null | undefined | false, info?: I | null, options?: Pick<JoinOptions, "history">,
): PresenceInChannel<I>;

/** The connection of the provider. `presence` is `undefined` until it is mounted. */
export function useConnection(): {readonly state: State; readonly presence: Presence | undefined};
