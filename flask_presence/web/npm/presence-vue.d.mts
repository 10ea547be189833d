/** Channels in Vue components: the plugin connects, `usePresence` joins. Importing this does nothing. */
import type {ComputedRef, MaybeRefOrGetter, Plugin} from "vue";
import type {
  Info, JoinOptions, Member, Message, MessageDetails, Presence, PresenceError, Room, State,
} from "./presence.mjs";

/**
 * The plugin for `app.use`. `presence` is a function that creates the `Presence`, called in the browser only, and the
 * plugin closes what it returns when the app is unmounted. Or it is a `Presence` of your own, which stays open.
 */
export function createPresence(presence: Presence | (() => Presence)): Plugin;

/** The handler is removed with the component, or by the function that this returns. */
export interface On<I extends object = Info> {
  (event: "joined" | "left" | "updated", handler: (member: Member<I>) => void): () => void;
  (event: "members", handler: (members: readonly Member<I>[]) => void): () => void;
  (event: "error" | "removed", handler: (error: PresenceError) => void): () => void;
  (event: "message" | `message:${string}`, handler: (data: any, details: MessageDetails) => void): () => void;
  (event: "gap", handler: (messages: readonly Message[]) => void): () => void;
}

/** A channel, as `usePresence` returns it. */
export interface PresenceInChannel<I extends object = Info> {
  /** In order of joining. Always empty unless it is a presence channel. */
  readonly members: ComputedRef<readonly Member<I>[]>;
  /** Our own entry in `members`. */
  readonly me: ComputedRef<Member<I> | undefined>;
  /** `left` without a channel. */
  readonly state: ComputedRef<Room["state"]>;
  /**
   * Why the server refused us, removed us, or did not accept our info; `DISCONNECTED` while the connection is `closed`.
   * `undefined` once we are joining again. If no component reads it, and no handler listens, a refusal is logged as a
   * warning.
   */
  readonly error: ComputedRef<PresenceError | undefined>;
  readonly send: Room<I>["send"];
  readonly update: Room<I>["update"];
  readonly on: On<I>;
}

/**
 * Joins a channel while the component is mounted. Components with the same channel share the room, and the last of them
 * leaves it. `name` and `info` may be refs or getters. Another name moves to that channel; `null` means none. A changed
 * key of `info` is an update, and a key that is gone is removed.
 *
 * `options.history` is how many kept messages the join asks for: `message` handlers hear them. If several components
 * share the room when it is joined, the largest number counts.
 */
export function usePresence<I extends object = Info>(
  name: MaybeRefOrGetter<string | null | undefined | false>, info?: MaybeRefOrGetter<I | null | undefined>,
  options?: Pick<JoinOptions, "history">,
): PresenceInChannel<I>;

/** The connection of the plugin. `presence` is `undefined` until the app is mounted. */
export function useConnection(): {
  readonly state: ComputedRef<State>;
  readonly presence: ComputedRef<Presence | undefined>;
};
