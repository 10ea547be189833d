// The stats page, live: asks the JSON API again every two seconds, with the query string that let the visitor in.
// Law: what comes from elsewhere becomes text, never markup; the page's state is its URL, with this script or without.

const INTERVAL = 2000;
const PATIENCE = 10_000;
const TYPING = 200; // milliseconds without another key after which a search is made

const { api, limit, order, own } = document.body.dataset;
const LIMIT = Number(limit);
const OWN = own.split(" ");
const others = [...new URLSearchParams(location.search)].filter(([name]) => !OWN.includes(name));
const answers = new Map(); // URL -> {etag, shape}

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

let state = readState();
let timer = 0;
let round = new AbortController();

class Closed extends Error {}
class Away extends Error {}

function readState() {
  const given = new URLSearchParams(location.search);
  const text = (name, usual = "") => given.get(name) || usual;
  return {
    search: text("search"), type: text("type"), sort: text("sort", order), offset: Number(text("offset", 0)),
    channel: text("channel"), members: Number(text("members", 0)),
  };
}

function address(changes) {
  const { sort, ...wanted } = { ...state, ...changes };
  const mine = Object.entries({ ...wanted, sort: sort === order ? "" : sort }).filter(([, value]) => value);
  const query = new URLSearchParams([...others, ...mine]).toString();
  return query ? `${api}?${query}` : api;
}

async function ask(path, wanted, signal) {
  const query = new URLSearchParams([...Object.entries(wanted).filter(([, value]) => value !== ""), ...others]);
  const url = `${location.origin}${api}${path}?${query}`; // without what may stand before the host
  const known = answers.get(url);
  const response = await fetch(url, {
    cache: "no-store",
    redirect: "manual",
    headers: known ? { "If-None-Match": known.etag } : {},
    signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]),
  });
  if (response.status === 304) return known.shape;
  if (response.status === 503) throw new Away("The state store is away");
  const isShape = response.ok && response.headers.get("Content-Type")?.startsWith("application/json");
  // A redirect, or a page, is a login that the visitor is sent to.
  if (response.type === "opaqueredirect" || [401, 403].includes(response.status) || (response.ok && !isShape)) {
    throw new Closed("This page is closed to you now");
  }
  if (!isShape) throw new Away(`The server answers ${response.status}`);
  const shape = await response.json();
  if (answers.size > 20) answers.clear();
  answers.set(url, { etag: response.headers.get("ETag"), shape });
  return shape;
}

async function refresh() {
  clearTimeout(timer);
  round.abort();
  round = new AbortController();
  const { signal } = round;
  const { search, type, sort, offset, channel, members } = state;
  try {
    const [activity, listed, shown] = await Promise.all([
      ask("activity", {}, signal),
      ask("channels", { search, type, sort, offset, limit: LIMIT, include: "rate" }, signal),
      channel && ask("members", { channel, offset: members, limit: LIMIT, include: "connections" }, signal),
    ]);
    if (signal.aborted) return undefined;
    if (!one("#tiles")) return location.reload(); // the page was made while the state store was away
    if (!listed.channels.length && listed.total) {
      return go(address({ offset: Math.floor((listed.total - 1) / LIMIT) * LIMIT }), { replace: true });
    }
    showActivity(activity);
    showChannels(listed);
    showChannel(shown);
    say("live", "Live");
  } catch (problem) {
    if (signal.aborted) return undefined;
    const kind = problem instanceof Closed ? "closed" : "away";
    say(kind, problem instanceof Closed || problem instanceof Away ? problem.message : "The server does not answer");
  }
  if (!document.hidden) timer = setTimeout(refresh, INTERVAL);
  return undefined;
}

function say(kind, text) {
  const place = one("#state");
  const { state: before } = place.dataset;
  if (kind !== "live" && kind === before) return;
  place.dataset.state = kind;
  put(place, kind !== "live" && before === "live" ? `${text}; this is as of ${new Date().toLocaleTimeString()}` : text);
}

function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function fill(body, template, items, keyOf, show) {
  const focused = document.activeElement;
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, at) => {
    const key = String(keyOf(item));
    const row = old.get(key) ?? template.content.firstElementChild.cloneNode(true);
    old.delete(key);
    row.dataset.key = key;
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
    show((name) => one(`[data-field="${name}"]`, row), item, row);
  });
  for (const row of old.values()) row.remove();
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
}

function fillCard(name, template, items, keyOf, show) {
  fill(one(`#${name}`), one(template), items, keyOf, show);
  const none = one(`[data-none="${name}"]`);
  if (none) none.hidden = items.length > 0;
}

function showActivity(activity) {
  const shown = { ...activity, refusedTotal: Object.values(activity.refused).reduce((sum, number) => sum + number, 0) };
  for (const place of all("[data-value]")) {
    const value = place.dataset.value.split(".").reduce((inner, key) => inner?.[key], shown);
    put(place, formats[place.dataset.format](value));
  }
  for (const tile of all("[data-flow]")) showFlow(tile, activity[tile.dataset.flow]);
  one("[data-alarm]").dataset.alarm = activity.outbox.blocked ? "on" : "off";

  fillCard("busiest", "#busy-row", activity.busiest, (busy) => busy.name, (field, busy) => {
    link(field("name"), busy.name);
    put(field("rate"), rate(busy.rate));
    gauge(field("meter"), busy.rate, activity.busiest[0].rate);
  });
  fillCard("slowest", "#slow-row", activity.outbox.slowest, (slow) => slow.clientId, (field, slow) => {
    put(field("user"), slow.userId ?? "anonymous");
    put(field("client"), slow.clientId);
    put(field("waiting"), size(slow.waitingBytes));
    gauge(field("meter"), slow.waitingBytes, activity.outbox.limitBytes);
  });
  fillCard("guards", "#guard-row", Object.entries(activity.guards), ([outcome]) => outcome, (field, [outcome, times]) => {
    put(field("outcome"), outcome);
    put(field("count"), count(times.count));
    put(field("mean"), duration(times.meanSeconds));
    put(field("p95"), (times.p95Seconds ? "≤ " : "") + duration(times.p95Seconds));
  });
  const meanings = one("#close-codes").content;
  for (const name of ["errors", "closed"]) {
    const counted = Object.entries(activity[name]).sort((a, b) => b[1] - a[1]); // JSON.parse puts numbers first
    fillCard(name, "#count-row", counted, ([code]) => code, (field, [code, number]) => {
      put(field("label"), code);
      put(field("note"), name === "closed" ? (one(`[data-code="${code}"]`, meanings)?.textContent ?? "") : "");
      put(field("number"), count(number));
    });
  }
}

function showFlow(tile, flow) {
  const [, , width, height] = one("svg", tile).getAttribute("viewBox").split(" ").map(Number);
  const top = Math.max(...flow.history, 1);
  const step = width / (flow.history.length - 1);
  const points = flow.history.map((value, at) => `${at * step},${(height - (value / top) * height).toFixed(1)}`);
  one("polyline", tile).setAttribute("points", points.join(" "));
  put(one("[data-rate]", tile), rate(flow.rate));
  put(one("[data-peak]", tile), rate(Math.max(...flow.history)));
}

function showChannels(listed) {
  fill(one("#channels"), one("#channel-row"), listed.channels, (channel) => channel.name, (field, channel, row) => {
    link(field("name"), channel.name);
    put(field("type"), channel.type);
    put(field("memberCount"), count(channel.memberCount));
    put(field("rate"), rate(channel.rate));
    since(field("createdAt"), channel.createdAt);
    row.classList.toggle("shown", channel.name === state.channel);
  });
  const none = one("#none");
  none.hidden = listed.channels.length > 0;
  put(none, state.search || state.type ? "No channel is like that." : "Nobody is in any channel.");
  for (const head of all("[data-sort]")) {
    const { sort } = head.dataset;
    const direction = state.sort === sort ? "ascending" : state.sort === `-${sort}` ? "descending" : "none";
    head.parentElement.setAttribute("aria-sort", direction);
    head.href = address({ sort: sortedBy(sort), offset: 0 });
  }
  page("channels", "offset", state.offset, listed);
}

function showChannel(channel) {
  const panel = one("#channel");
  panel.hidden = !state.channel;
  if (!state.channel) return;
  put(one("[data-name]", panel), state.channel);
  one("[data-close]", panel).href = address({ channel: "", members: 0 });
  const members = channel.members ?? [];
  let summary = "Nobody is in it.";
  if (members.length) summary = `${count(channel.memberCount)} members`;
  else if (channel.memberCount) summary = `${count(channel.memberCount)} connections; only presence channels list their members.`;
  put(one("[data-summary]", panel), summary);
  one(".scroll", panel).hidden = !members.length;
  fill(one("#members"), one("#member-row"), members, (member) => member.id, (field, member) => {
    put(field("name"), member.name);
    put(field("id"), member.id);
    put(field("connections"), String(channel.connections[member.id]));
    since(field("joinedAt"), member.joinedAt);
    showDetails(field("details"), member);
  });
  page("members", "members", state.members, { ...channel, channels: members });
}

function showDetails(place, { id, name, clientId, joinedAt, updatedAt, ...details }) {
  const text = JSON.stringify(details);
  if (place.dataset.shown === text) return;
  place.dataset.shown = text;
  place.replaceChildren(...Object.entries(details).flatMap(([key, value]) => {
    const detail = Object.assign(document.createElement("span"), { className: "detail" });
    const label = Object.assign(document.createElement("b"), { textContent: key });
    detail.append(label, " ", typeof value === "string" ? value : JSON.stringify(value));
    return [detail, " "];
  }));
}

function page(name, key, offset, { channels: shown, total, next }) {
  const place = one(`[data-paging="${name}"]`);
  const from = offset + 1;
  put(one("[data-place]", place), shown.length ? `${count(from)} to ${count(offset + shown.length)} of ${count(total)}` : "");
  const previous = one("[data-previous]", place);
  previous.hidden = !offset;
  previous.href = address({ [key]: Math.max(0, offset - LIMIT) });
  const following = one("[data-next]", place);
  following.hidden = !next;
  following.href = address({ [key]: next ?? 0 });
}

function link(place, name) {
  put(place, name);
  const href = address({ channel: name, members: 0 });
  if (place.getAttribute("href") !== href) place.setAttribute("href", href);
}

function gauge(place, value, most) {
  place.max = most;
  place.value = value;
}

function since(place, moment) {
  place.dateTime = moment;
  place.title = moment;
  const seconds = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
  const [length, unit] = [[86_400, "d"], [3600, "h"], [60, "min"]].find(([least]) => seconds >= least) ?? [1, "s"];
  put(place, `${Math.floor(seconds / length)} ${unit}`);
}

function sortedBy(name) {
  const [first, second] = ["name", "type"].includes(name) ? [name, `-${name}`] : [`-${name}`, name];
  return state.sort === first ? second : first;
}

function count(number) {
  return Math.trunc(number).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function rate(number) {
  if (number === null) return "–";
  return number > 0 && number < 9.95 ? number.toFixed(1) : count(number.toFixed(0));
}

function size(number) {
  for (const unit of ["B", "kB", "MB"]) {
    if (number < 999.5) return `${number.toFixed(number < 9.95 && unit !== "B" ? 1 : 0)} ${unit}`;
    number /= 1000;
  }
  return `${number.toFixed(1)} GB`;
}

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds >= 0.9995) return `${seconds.toFixed(1)} s`;
  return `${(seconds * 1000).toFixed(seconds > 0 && seconds < 0.00995 ? 1 : 0)} ms`;
}

export const formats = { count, rate, size, duration };

function go(href, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", href);
  state = readState();
  return refresh();
}

document.addEventListener("click", async (event) => {
  const target = event.target.closest("main a[href]");
  if (!target || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const before = state.channel;
  await go(target.getAttribute("href"));
  if (state.channel === before) return;
  // Closing must not lose the place of who uses a keyboard.
  const opener = all("#channels a").find((link) => link.textContent === before);
  (state.channel ? one("#channel") : (opener ?? form.elements.search)).focus();
});

const form = one("form");
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, TYPING);
});
one("button", form).hidden = true;

async function search() {
  const { search: words, type } = form.elements;
  await go(address({ search: words.value.trim(), type: type.value, offset: 0 }), { replace: true });
  put(one("#found"), one('[data-paging="channels"] [data-place]').textContent || one("#none").textContent);
}

addEventListener("popstate", () => {
  state = readState();
  form.elements.search.value = state.search;
  form.elements.type.value = state.type;
  refresh();
});
document.addEventListener("visibilitychange", () => !document.hidden && refresh());
refresh();
