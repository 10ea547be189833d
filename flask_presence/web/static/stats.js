// Keeps the stats page live: fetches the JSON API every two seconds, with the query parameters that grant access.
// Rule: text from users and apps is shown as text, never as markup. The page's state is in its URL.

const INTERVAL = 2000;
const REQUEST_TIMEOUT = 10_000;
const TYPING_PAUSE = 200; // milliseconds after the last key until a search starts
const MAX_CACHED = 20;

const { api, defaultSort, pageParameters } = document.body.dataset;
const PAGE_SIZE = Number(document.body.dataset.pageSize);
const OWN_PARAMETERS = pageParameters.split(" ");
const foreignParameters = [...new URLSearchParams(location.search)].filter(([name]) => !OWN_PARAMETERS.includes(name));
const cache = new Map(); // URL -> {etag, payload}

const find = (selector, parent = document) => parent.querySelector(selector);
const findAll = (selector, parent = document) => [...parent.querySelectorAll(selector)];

let state = readState();
let timer = 0;
let refreshing = new AbortController();

class AccessDenied extends Error {}
class Unreachable extends Error {}

// Fetching

function readState() {
  const parameters = new URLSearchParams(location.search);
  const read = (name, fallback = "") => parameters.get(name) || fallback;
  return {
    search: read("search"), type: read("type"), sort: read("sort", defaultSort), offset: Number(read("offset", 0)),
    channel: read("channel"), members: Number(read("members", 0)),
  };
}

function pageUrl(changes) {
  const { sort, ...others } = { ...state, ...changes };
  const parameters = { ...others, sort: sort === defaultSort ? "" : sort };
  const own = Object.entries(parameters).filter(([, value]) => value);
  const query = new URLSearchParams([...foreignParameters, ...own]).toString();
  return query ? `${api}?${query}` : api;
}

async function fetchPayload(path, parameters, signal) {
  const own = Object.entries(parameters).filter(([, value]) => value !== "");
  const query = new URLSearchParams([...own, ...foreignParameters]);
  const url = `${location.origin}${api}${path}?${query}`; // the origin has no user:password@, which fetch() rejects
  const cached = cache.get(url);
  const response = await fetch(url, {
    cache: "no-store",
    redirect: "manual",
    headers: cached ? { "If-None-Match": cached.etag } : {},
    signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT)]),
  });
  if (response.status === 304) return cached.payload;
  if (response.status === 503) throw new Unreachable("The state store is unreachable");
  const isJSON = response.ok && response.headers.get("Content-Type")?.startsWith("application/json");
  // A redirect, or a page in place of JSON, leads to a login.
  if (response.type === "opaqueredirect" || [401, 403].includes(response.status) || (response.ok && !isJSON)) {
    throw new AccessDenied("You no longer have access to this page");
  }
  if (!isJSON) throw new Unreachable(`The server answers ${response.status}`);
  const payload = await response.json();
  if (cache.size > MAX_CACHED) cache.clear();
  cache.set(url, { etag: response.headers.get("ETag"), payload });
  return payload;
}

// The channel's shard may be away while the others answer. If none does, the other requests fail too.
function unknownIfUnreachable(problem) {
  if (problem instanceof Unreachable) return null;
  throw problem;
}

async function refresh() {
  clearTimeout(timer);
  refreshing.abort();
  refreshing = new AbortController();
  const { signal } = refreshing;
  const { search, type, sort, offset, channel, members } = state;
  const channelQuery = { search, type, sort, offset, limit: PAGE_SIZE, include: "rate" };
  const memberQuery = { channel, offset: members, limit: PAGE_SIZE, include: "connections" };
  try {
    const [activity, channelList, openChannel] = await Promise.all([
      fetchPayload("activity", {}, signal),
      fetchPayload("channels", channelQuery, signal),
      channel && fetchPayload("members", memberQuery, signal).catch(unknownIfUnreachable),
    ]);
    if (signal.aborted) return undefined;
    if (!find("#tiles")) return location.reload(); // the page was rendered while the state store was unreachable
    if (!channelList.channels.length && channelList.total) {
      const lastPage = Math.floor((channelList.total - 1) / PAGE_SIZE) * PAGE_SIZE;
      return navigate(pageUrl({ offset: lastPage }), { replace: true });
    }
    showActivity(activity);
    showChannelList(channelList);
    showOpenChannel(openChannel);
    showStatus("live", "Live");
  } catch (problem) {
    if (signal.aborted) return undefined;
    const isKnown = problem instanceof AccessDenied || problem instanceof Unreachable;
    const status = problem instanceof AccessDenied ? "denied" : "unreachable";
    showStatus(status, isKnown ? problem.message : "The server does not answer");
  }
  if (!document.hidden) timer = setTimeout(refresh, INTERVAL);
  return undefined;
}

// Showing

function showStatus(status, text) {
  const element = find("#status");
  const previous = element.dataset.state;
  if (status !== "live" && status === previous) return;
  element.dataset.state = status;
  const isStale = status !== "live" && previous === "live";
  setText(element, isStale ? `${text}; data as of ${new Date().toLocaleTimeString()}` : text);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Keeps the rows of items that are still there, so that focus and selection survive.
function showRows(body, template, items, keyOf, show) {
  const focused = document.activeElement;
  const unused = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const key = String(keyOf(item));
    const row = unused.get(key) ?? template.content.firstElementChild.cloneNode(true);
    unused.delete(key);
    row.dataset.key = key;
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    show((name) => find(`[data-field="${name}"]`, row), item, row);
  });
  for (const row of unused.values()) row.remove();
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
}

function showTable(name, template, items, keyOf, show) {
  showRows(find(`#${name}`), find(template), items, keyOf, show);
  const emptyText = find(`[data-if-empty="${name}"]`);
  if (emptyText) emptyText.hidden = items.length > 0;
}

function showActivity(activity) {
  const refusedTotal = Object.values(activity.refused).reduce((sum, number) => sum + number, 0);
  const values = { ...activity, refusedTotal };
  for (const element of findAll("[data-value]")) {
    const value = element.dataset.value.split(".").reduce((object, key) => object?.[key], values);
    setText(element, formats[element.dataset.format](value));
  }
  for (const tile of findAll("[data-flow]")) showFlow(tile, activity[tile.dataset.flow]);
  find("[data-alarm]").dataset.alarm = activity.outbox.blocked ? "on" : "off";
  showUnavailable(activity.unavailable ?? []);
  showBusiest(activity.busiest);
  showSlowest(activity.outbox);
  showGuards(activity.guards);
  showCounts("errors", activity.errors);
  showCounts("closed", activity.closed);
}

function showUnavailable(labels) {
  const note = find("#unavailable");
  note.hidden = !labels.length;
  const text = `Shards that do not answer: ${labels.join(", ")}. Their channels and counts are missing.`;
  setText(note, labels.length ? text : "");
}

function showBusiest(busiest) {
  showTable("busiest", "#busy-row", busiest, (channel) => channel.name, (field, channel) => {
    linkToChannel(field("name"), channel.name);
    setText(field("rate"), rate(channel.rate));
    setMeter(field("meter"), channel.rate, busiest[0].rate);
  });
}

function showSlowest({ slowest, limitBytes }) {
  showTable("slowest", "#slow-row", slowest, (client) => client.clientId, (field, client) => {
    setText(field("user"), client.userId ?? "anonymous");
    setText(field("client"), client.clientId);
    setText(field("waiting"), size(client.waitingBytes));
    setMeter(field("meter"), client.waitingBytes, limitBytes);
  });
}

function showGuards(guards) {
  showTable("guards", "#guard-row", Object.entries(guards), ([outcome]) => outcome, (field, [outcome, times]) => {
    setText(field("outcome"), outcome);
    setText(field("count"), count(times.count));
    setText(field("mean"), duration(times.meanSeconds));
    setText(field("p95"), (times.p95Seconds ? "≤ " : "") + duration(times.p95Seconds));
  });
}

function showCounts(name, counts) {
  const meanings = find("#close-codes").content;
  const meaning = (code) => (name === "closed" && find(`[data-code="${code}"]`, meanings)?.textContent) || "";
  const items = Object.entries(counts).sort((a, b) => b[1] - a[1]); // JSON.parse has put integer keys first
  showTable(name, "#count-row", items, ([code]) => code, (field, [code, number]) => {
    setText(field("label"), code);
    setText(field("note"), meaning(code));
    setText(field("number"), count(number));
  });
}

function showFlow(tile, flow) {
  const [, , width, height] = find("svg", tile).getAttribute("viewBox").split(" ").map(Number);
  const top = Math.max(...flow.history, 1);
  const step = width / (flow.history.length - 1);
  const points = flow.history.map((value, index) => `${index * step},${(height - (value / top) * height).toFixed(1)}`);
  find("polyline", tile).setAttribute("points", points.join(" "));
  setText(find("[data-rate]", tile), rate(flow.rate));
  setText(find("[data-peak]", tile), rate(Math.max(...flow.history)));
}

function showChannelList(channelList) {
  const { channels } = channelList;
  showRows(find("#channels"), find("#channel-row"), channels, (channel) => channel.name, (field, channel, row) => {
    linkToChannel(field("name"), channel.name);
    setText(field("type"), channel.type);
    setText(field("memberCount"), count(channel.memberCount));
    setText(field("rate"), rate(channel.rate));
    setAge(field("createdAt"), channel.createdAt);
    row.classList.toggle("open", channel.name === state.channel);
  });
  const emptyText = find("#no-channels");
  emptyText.hidden = channels.length > 0;
  setText(emptyText, state.search || state.type ? "No channel matches." : "Nobody is in any channel.");
  for (const head of findAll("[data-sort]")) {
    const { sort } = head.dataset;
    const direction = state.sort === sort ? "ascending" : state.sort === `-${sort}` ? "descending" : "none";
    head.parentElement.setAttribute("aria-sort", direction);
    head.href = pageUrl({ sort: nextSort(sort), offset: 0 });
  }
  showPaging("channels", "offset", state.offset, channels.length, channelList);
}

function showOpenChannel(channel) {
  const panel = find("#channel");
  panel.hidden = !state.channel;
  if (!state.channel) return;
  setText(find("[data-name]", panel), state.channel);
  find("[data-close]", panel).href = pageUrl({ channel: "", members: 0 });
  const members = channel?.members ?? [];
  setText(find("[data-summary]", panel), channel ? summaryOf(channel, members) : "Unknown: its shard does not answer.");
  showKept(find("[data-kept]", panel), channel?.history);
  find(".scroll", panel).hidden = !members.length;
  showRows(find("#members"), find("#member-row"), members, (member) => member.id, (field, member) => {
    setText(field("name"), member.name);
    setText(field("id"), member.id);
    setText(field("connections"), String(channel.connections[member.id]));
    setAge(field("joinedAt"), member.joinedAt);
    showDetails(field("details"), member);
  });
  showPaging("members", "members", state.members, members.length, channel ?? { total: 0, next: null });
}

function summaryOf({ memberCount }, members) {
  if (members.length) return `${count(memberCount)} members`;
  if (!memberCount) return "Nobody is in this channel.";
  return `${count(memberCount)} connections; only presence channels list their members.`;
}

function showKept(element, kept) {
  element.hidden = !kept;
  setText(element, kept ? `Kept messages: ${count(kept.messages)} (${size(kept.bytes)})` : "");
}

function showDetails(element, { id, name, clientId, joinedAt, updatedAt, ...details }) {
  const text = JSON.stringify(details);
  if (element.dataset.shown === text) return;
  element.dataset.shown = text;
  element.replaceChildren(...Object.entries(details).flatMap(([key, value]) => {
    const detail = Object.assign(document.createElement("span"), { className: "detail" });
    const label = Object.assign(document.createElement("b"), { textContent: key });
    detail.append(label, " ", typeof value === "string" ? value : JSON.stringify(value));
    return [detail, " "];
  }));
}

function showPaging(name, parameter, offset, length, { total, next }) {
  const nav = find(`[data-paging="${name}"]`);
  const range = `${count(offset + 1)} to ${count(offset + length)} of`;
  setText(find("[data-range]", nav), length ? `${range} ${count(total)}` : "");
  const previousLink = find("[data-previous]", nav);
  previousLink.hidden = !offset;
  previousLink.href = pageUrl({ [parameter]: Math.max(0, offset - PAGE_SIZE) });
  const nextLink = find("[data-next]", nav);
  nextLink.hidden = !next;
  nextLink.href = pageUrl({ [parameter]: next ?? 0 });
}

function linkToChannel(link, name) {
  setText(link, name);
  const href = pageUrl({ channel: name, members: 0 });
  if (link.getAttribute("href") !== href) link.setAttribute("href", href);
}

function setMeter(meter, value, max) {
  meter.max = max;
  meter.value = value;
}

function setAge(element, timestamp) {
  element.dateTime = timestamp;
  element.title = timestamp;
  const seconds = Math.max(0, (Date.now() - Date.parse(timestamp)) / 1000);
  const [length, unit] = [[86_400, "d"], [3600, "h"], [60, "min"]].find(([minimum]) => seconds >= minimum) ?? [1, "s"];
  setText(element, `${Math.floor(seconds / length)} ${unit}`);
}

function nextSort(name) {
  const [first, second] = ["name", "type"].includes(name) ? [name, `-${name}`] : [`-${name}`, name];
  return state.sort === first ? second : first;
}

// Formatting: the same as in stats/format.py

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

// Navigating

function navigate(href, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", href);
  state = readState();
  return refresh();
}

document.addEventListener("click", async (event) => {
  const link = event.target.closest("main a[href]");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const previous = state.channel;
  await navigate(link.getAttribute("href"));
  if (state.channel === previous) return;
  // Keyboard users must not lose their place when they close a channel.
  const opener = findAll("#channels a").find((channelLink) => channelLink.textContent === previous);
  (state.channel ? find("#channel") : (opener ?? form.elements.search)).focus();
});

const form = find("form");
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, TYPING_PAUSE);
});
find("button", form).hidden = true;

async function search() {
  const { search: words, type } = form.elements;
  await navigate(pageUrl({ search: words.value.trim(), type: type.value, offset: 0 }), { replace: true });
  const range = find('[data-paging="channels"] [data-range]').textContent;
  setText(find("#search-result"), range || find("#no-channels").textContent);
}

addEventListener("popstate", () => {
  state = readState();
  form.elements.search.value = state.search;
  form.elements.type.value = state.type;
  refresh();
});
document.addEventListener("visibilitychange", () => !document.hidden && refresh());
refresh();
