const $ = (id) => document.getElementById(id);
const element = (tag, textContent = '', className = '') =>
  Object.assign(document.createElement(tag), { textContent, className });

const TYPING_SHOWN = 3000;
const CURSORS_PER_SECOND = 20;
const PAGE = 20; // messages
const CLOSED = { 4401: 'Your login has expired.', 4403: 'The server has ended this session.' };

let presence, room, live, me, token;

$('login').onsubmit = (event) => {
  event.preventDefault();
  const login = new FormData(event.target, event.submitter);
  sessionStorage.user = me = login.get('user'); // a reload logs in again; your app has a cookie for this
  presence = new Presence(document.body.dataset.socket, {
    auth: 'protocol', // keeps the token out of URLs, and so out of logs
    // presence.js calls this for every connection, and again before the token expires.
    token: async () => {
      const response = await fetch(event.target.action, { method: 'POST', body: login });
      token = (await response.json()).access_token;
      return token;
    }
  });
  presence.on('state', showState);
  presence.on('broadcast', ({ type, channel, text }) => type === 'greeting' && channel === room.name && note(text));
  showState(presence.state);
  $('login').hidden = true;
  $('room').hidden = $('quit').hidden = false;
  enter(sessionStorage.room ?? 'general');
};

$('quit').onsubmit = async (event) => {
  event.preventDefault();
  const headers = { Authorization: `Bearer ${token}` };
  await fetch(event.target.action, { method: 'POST', headers }).catch(() => {}); // the page reloads in any case
  sessionStorage.clear();
  location.reload();
};

function enter(name) {
  for (const left of [room, live]) left?.leave().catch(() => {}); // the answer does not matter any more
  sessionStorage.room = name;
  for (const button of $('rooms').querySelectorAll('button')) {
    button.ariaCurrent = button.value === name ? 'true' : null;
  }
  call(`Room: ${name}`);
  $('room').classList.remove('outside');
  $('log').replaceChildren();
  oldest = undefined;
  $('members').replaceChildren();
  showOnline(0);
  $('send').disabled = true;
  $('text').placeholder = 'Message';
  cursors.forEach((_, id) => dropCursor(id));
  typists.forEach((_, id) => stopTyping(id));

  // What is worth nothing a moment later goes through a channel that keeps no messages.
  live = presence.join(`private-room-${name}`)
    .on('message:typing', (_, { from }) => startTyping(from.userId))
    .on('message:cursor', (place, { from }) => (isPlace(place) ? moveCursor : dropCursor)(from.userId, place))
    .on('message:wave', (place, { from }) => isPlace(place) && wave(from.userId, place))
    .on('removed', () => {})
    .on('error', () => {}); // the room itself reports it
  // `message` brings the newest kept messages, then the new ones, and after a reconnect those that were missed.
  room = presence.join(`presence-room-${name}`, { away: document.hidden }, { history: PAGE })
    .on('members', showMembers)
    .on('left', (member) => {
      note(`${member.name} has left.`);
      dropCursor(member.id);
      stopTyping(member.id);
    })
    .on('updated', keepAwake)
    .on('message', (data, details) => {
      stopTyping(details.from.userId);
      showMessage({ data, ...details });
    })
    .on('gap', (messages) => {
      note('Some messages may be missing here.');
      messages.forEach(showMessage);
    })
    .on('removed', ({ message }) => {
      live.leave().catch(() => {});
      showOutside(name);
      note(`You are no longer in this room. ${message}`);
    })
    .on('error', ({ code, message }) => {
      if (room?.state === 'refused') showOutside(name);
      note(code === 'FORBIDDEN' ? `Sorry, you cannot come in. ${message}` : `Sorry, that failed. ${message}`);
    });
  room.joined.then(() => {
    if (document.activeElement.closest('#login, #rooms')) $('text').focus();
    showOlder(); // if the newest ones do not fill the log
  }, () => {});
}

$('rooms').onclick = ({ target }) => target.value && enter(target.value);

const call = (title) => ($('title').textContent = document.title = title);

/* We are in no room, and the page must not look as if we were. */
function showOutside(name) {
  call(`Not in room: ${name}`);
  $('rooms').querySelector('[aria-current]')?.removeAttribute('aria-current');
  $('room').classList.add('outside');
  showOnline(0);
}

// Another client may send any JSON.
const isText = (text) => typeof text === 'string';

/* Connection */

function showState(state, { code } = {}) {
  $('again').hidden = state !== 'closed';
  $('send').disabled = true;
  $('state').textContent = {
    connecting: $('state').textContent || 'Connecting …', // only for the first attempt
    connected: '',
    waiting: code === 1001 ? 'The server is restarting. Reconnecting …' : 'Reconnecting …',
    closed: `You are not connected. ${CLOSED[code] ?? ''}`
  }[state];
}

$('again').onclick = () => presence.connect();

/* Who is here */

const users = new Map([...$('users').children].map(({ value, textContent }) => [value, textContent]));
const nameOf = (id) => room.members.find((member) => member.id === id)?.name ?? users.get(id) ?? id; // or they have left
const initials = (name) => name.split(/\s+/).map((word) => word[0] ?? '').join('').slice(0, 2).toUpperCase();
const paint = (node, id) => {
  node.style.setProperty('--hue', [...id].reduce((sum, letter) => sum * 31 + letter.codePointAt(0), 7) % 360);
  return node;
};

function avatar(id, name) {
  const node = paint(element('span', initials(name), 'avatar'), id);
  node.ariaHidden = 'true';
  return node;
}

function showMembers(members) {
  const mayWrite = room.me && (room.me.badge || !room.name.endsWith('-announcements')); // the server checks this too
  $('send').disabled = !mayWrite;
  $('text').placeholder = mayWrite ? 'Message' : 'Only staff write here';
  showOnline(members.length);
  $('members').replaceChildren(...members.map(({ id, name, away, badge }) => {
    const item = element('li', '', away ? 'away' : '');
    item.append(avatar(id, name), element('span', id === me ? `${name} (you)` : name));
    if (badge) item.append(element('small', badge, 'badge'));
    if (away) item.append(element('small', 'away'));
    return item;
  }));
}

const showOnline = (count) => ($('count').textContent = count || '');
const showAway = (away) => room?.update({ away }).catch(() => {}); // the next join sends it again
document.onvisibilitychange = () => showAway(document.hidden);

function keepAwake(member) {
  // Another window of ours is hidden, but this one is visible.
  if (member.id === me && member.away && !document.hidden) showAway(false);
}

/* Chat */

const send = (event, data) => live?.send(event, data).catch(() => {}); // not worth a second attempt
let oldest; // the id of the oldest message in the log; null if the room keeps no older one

$('composer').onsubmit = async (event) => {
  event.preventDefault();
  const text = $('text').value;
  const target = room;
  const line = messageLine(me, text, new Date()); // the server sends a message to everybody but its sender
  line.classList.add('unsent');
  show(line);
  $('log').scrollTop = $('log').scrollHeight;
  $('text').value = '';
  typedAt = 0;
  try {
    const { id } = await room.send('message', { text }); // a lost connection only delays this
    line.classList.remove('unsent');
    if (room === target) oldest ??= id;
  } catch ({ message }) {
    line.remove();
    note(`Your message was not sent. ${message}`);
    $('text').value ||= text;
  }
};

function showMessage(message) {
  if (oldest === undefined) oldest = message.id;
  if (isChat(message)) show(lineOf(message));
  else if (isAnnouncement(message)) note(`Announcement: ${message.data.text}`);
}

const isChat = ({ event, data, from }) => event === 'message' && from.userId && isText(data?.text);
const isAnnouncement = ({ event, data, from }) =>
  event === 'announcement' && from.clientId === 'server' && isText(data?.text); // a client may send the same event
const lineOf = ({ data, from, timestamp }) => messageLine(from.userId, data.text, new Date(timestamp));

function messageLine(id, text, date) {
  const line = element('p', '', id === me ? 'message mine' : 'message');
  const name = nameOf(id);
  const bubble = element('span', '', 'bubble');
  const body = element('span', '', 'body');
  body.append(element('b', name), element('span', text));
  bubble.append(body, clock(date));
  line.append(avatar(id, name), bubble);
  return line;
}

function clock(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  const text = date.toLocaleString([], { timeStyle: 'short', ...(isToday ? {} : { dateStyle: 'short' }) });
  return Object.assign(element('time', text), { dateTime: date.toISOString(), title: date.toLocaleString() });
}

const note = (text) => show(element('p', text, 'note'));

function show(line) {
  const log = $('log');
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60; // do not scroll if the user reads older messages
  log.append(line);
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/* Older messages, above the others */

let asksFor; // the room whose older messages are on their way

$('log').onscroll = () => showOlder();

async function showOlder() {
  const log = $('log');
  if (asksFor === room || !oldest || log.scrollTop > 60) return;
  const here = (asksFor = room);
  const page = await room.history({ limit: PAGE, before: oldest }).catch(() => {}); // scrolling tries again
  if (room !== here) return;
  asksFor = undefined;
  if (!page) return;
  const fromEnd = log.scrollHeight - log.scrollTop;
  log.prepend(...page.messages.filter(isChat).map(lineOf));
  log.scrollTop = log.scrollHeight - fromEnd; // keeps the lines that the user is reading in place
  oldest = page.more ? page.messages[0].id : null;
  showOlder();
}

/* Who is typing */

const typists = new Map();
let typedAt = 0;

$('text').oninput = () => {
  if (Date.now() - typedAt > TYPING_SHOWN / 2) {
    typedAt = Date.now();
    send('typing');
  }
};

function startTyping(id) {
  clearTimeout(typists.get(id));
  typists.set(id, setTimeout(() => stopTyping(id), TYPING_SHOWN));
  showTyping();
}

function stopTyping(id) {
  clearTimeout(typists.get(id));
  typists.delete(id);
  showTyping();
}

function showTyping() {
  const names = [...typists.keys()].map(nameOf);
  $('typing').textContent = names.length ? `${names.join(', ')} ${names.length > 1 ? 'are' : 'is'} typing …` : '';
}

/* Cursors: a position is a share of the area's width and height, so that it fits every window */

const cursors = new Map();
const pointer = { x: 0.5, y: 0.5 };
let cursorTimer;

function point(x, y) {
  Object.assign(pointer, { x: Math.min(1, Math.max(0, x)), y: Math.min(1, Math.max(0, y)) });
}

function sendCursor() {
  cursorTimer ??= setTimeout(() => {
    cursorTimer = undefined;
    send('cursor', pointer);
  }, 1000 / CURSORS_PER_SECOND);
}

const placeOf = ({ clientX, clientY }, area = $('board').getBoundingClientRect()) =>
  [(clientX - area.left) / area.width, (clientY - area.top) / area.height];

$('board').onpointermove = (event) => {
  point(...placeOf(event));
  sendCursor();
};
$('board').onclick = (event) => {
  point(...placeOf(event));
  if (event.pointerType !== 'touch') sendCursor(); // the finger has left the screen
  sendWave();
};
$('board').onpointerleave = $('board').onblur = () => {
  clearTimeout(cursorTimer);
  cursorTimer = undefined;
  dropCursor(me);
  send('cursor', null);
};
$('board').onkeydown = (event) => {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (event.key === 'Enter') sendWave();
  else if (!x && !y) return;
  event.preventDefault();
  point(pointer.x + x * 0.02, pointer.y + y * 0.02);
  sendCursor();
  moveCursor(me, pointer); // unlike the mouse, the keys move no pointer, so our own cursor shows the position
};

function sendWave() {
  send('wave', pointer);
  wave(me, pointer);
}

const isPlace = (place) => Number.isFinite(place?.x) && Number.isFinite(place?.y);

function put(node, { x, y }) {
  node.style.left = `${x * 100}%`;
  node.style.top = `${y * 100}%`;
  return node;
}

function moveCursor(id, place) {
  let cursor = cursors.get(id);
  if (!cursor) {
    cursor = paint(element('span', '', 'cursor'), id);
    cursor.append(element('b', nameOf(id)));
    cursor.ariaHidden = 'true';
    cursors.set(id, cursor);
    $('board').append(cursor);
  }
  put(cursor, place);
}

function dropCursor(id) {
  cursors.get(id)?.remove();
  cursors.delete(id);
}

function wave(id, place) {
  $('waved').textContent = id === me ? '' : `${nameOf(id)} waves`;
  const ring = put(paint(element('span', '', 'wave'), id), place);
  $('board').append(ring);
  setTimeout(() => ring.remove(), 1500);
}

users.has(sessionStorage.user) && $('users').querySelector(`[value="${sessionStorage.user}"]`).click();
