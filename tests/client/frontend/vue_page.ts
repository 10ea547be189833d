// The page of `react_page.tsx` with Vue: a test changes `entries`, and there is one component for each.
import {createApp, defineComponent, h, nextTick, onUnmounted, reactive, type PropType} from "vue";
import {Presence} from "flask-presence";
import {createPresence, useConnection, usePresence, type PresenceInChannel} from "flask-presence/vue";

interface Info {
  status?: string;
  mood?: string;
}

interface Entry {
  id: string;
  name: string | null;
  info?: Info;
  history?: number;
}

interface Page {
  show: (entries: Entry[] | null) => Promise<void>;
  rooms: Record<string, PresenceInChannel<Info>>;
  created: number;
  heard: unknown[];
}

const page = window as unknown as Page;
Object.assign(page, {rooms: {}, created: 0, heard: []});
const token = async () => (await fetch("/token", {method: "POST"})).text();

const Part = defineComponent({
  props: {entry: {type: Object as PropType<Entry>, required: true}},
  setup({entry}) {
    const room = usePresence<Info>(() => entry.name, () => entry.info, {history: entry.history});
    room.on("message:typing", (data, {from}) => page.heard.push([entry.id, data, from.userId]));
    room.on("gap", (messages) => page.heard.push([entry.id, messages.map(({data}) => data)]));
    page.rooms[entry.id] = room;
    onUnmounted(() => delete page.rooms[entry.id]);
    const {members, me, state, error} = room;
    const texts = () => members.value.map((one) => `${one.id}:${one.status ?? ""}`);
    return () =>
      h("li", {id: entry.id}, [state.value, me.value?.id ?? "nobody", ...texts(), error.value?.code].join(" "));
  },
});

const shown = reactive<{entries: Entry[]}>({entries: []});
const app = createApp({
  setup() {
    const {state} = useConnection();
    return () => [h("p", {id: "state"}, state.value), ...shown.entries.map((entry) => h(Part, {key: entry.id, entry}))];
  },
});
app.use(createPresence(() => {
  page.created += 1;
  return new Presence("/presence/ws", {token, auth: "protocol"});
}));

page.show = async (entries) => {
  if (entries === null) {
    app.unmount();
    return;
  }
  for (const entry of entries) {
    const before = shown.entries.find(({id}) => id === entry.id);
    Object.assign(before ?? {}, {info: undefined}, entry);
  }
  shown.entries = entries.map((entry) => shown.entries.find(({id}) => id === entry.id) ?? entry);
  await nextTick();
};
app.mount("#root");
