/* The rooms with pusher-js: the same members and messages as on the page with presence.js. */

const $ = (id) => document.getElementById(id);
const element = (tag, textContent = '', className = '') =>
  Object.assign(document.createElement(tag), { textContent, className });
const isText = (text) => typeof text === 'string'; // another client may send any JSON

let pusher, channel, me;

$('login').onsubmit = (event) => {
  event.preventDefault();
  const login = new FormData(event.target, event.submitter);
  me = login.get('user');
  const { key, path, auth } = document.body.dataset;

  // This is all that differs from a page for Pusher's own service.
  const port = location.port || (location.protocol === 'https:' ? 443 : 80);
  pusher = new Pusher(key, {
    cluster: 'here', // pusher-js demands one, and does not use it
    wsHost: location.hostname,
    wsPort: port,
    wssPort: port,
    wsPath: path,
    forceTLS: location.protocol === 'https:',
    enabledTransports: ['ws', 'wss'], // without this, it falls back to hosts of Pusher's
    channelAuthorization: {
      // A page that logs in with a cookie writes `endpoint: "/presence/pusher/auth"` instead.
      customHandler: async ({ socketId, channelName }, done) => {
        try {
          const { access_token } = await post(event.target.action, login);
          const form = new URLSearchParams({ socket_id: socketId, channel_name: channelName });
          done(null, await post(auth, form, { Authorization: `Bearer ${access_token}` }));
        } catch (problem) {
          done(problem, null);
        }
      }
    }
  });
  pusher.connection.bind('state_change', ({ current }) => {
    $('state').textContent = current === 'connected' ? '' : `${current} …`;
    if (current !== 'connected') $('send').disabled = true;
  });
  pusher.bind('pusher:error', ({ message }) => note(`Sorry, that failed. ${message}`));
  $('login').hidden = true;
  $('room').hidden = false;
  enter('general');
};

async function post(url, body, headers) {
  const response = await fetch(url, { method: 'POST', body, headers });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error?.message ?? response.statusText);
  return answer;
}

function enter(name) {
  if (channel) {
    channel.unbind();
    pusher.unsubscribe(channel.name);
  }
  for (const button of $('rooms').querySelectorAll('button')) {
    button.ariaCurrent = button.value === name ? 'true' : null;
  }
  $('title').textContent = document.title = `Room: ${name}`;
  $('log').replaceChildren();
  $('members').replaceChildren();
  $('count').textContent = '';
  $('send').disabled = true;
  channel = pusher.subscribe(`presence-room-${name}`)
    .bind('pusher:subscription_succeeded', () => {
      $('send').disabled = false;
      showMembers();
    })
    .bind('pusher:subscription_error', ({ error }) => {
      $('send').disabled = true;
      $('members').replaceChildren();
      $('count').textContent = '';
      note(`Sorry, you cannot be in this room. ${error}`);
    })
    .bind('pusher:member_added', showMembers)
    .bind('pusher:member_removed', ({ info }) => {
      showMembers();
      note(`${info.name} has left.`);
    })
    .bind('presence:member_updated', ({ user_id, user_info }) => {
      channel.members.members[user_id] = user_info; // pusher-js knows no such event
      showMembers();
    })
    .bind('greeting', ({ text }) => note(text)) // what clients send begins with `client-`
    .bind('announcement', (data) => isText(data?.text) && note(`Announcement: ${data.text}`))
    .bind('client-message', (data, { user_id }) => isText(data?.text) && showMessage(user_id, data.text));
}

$('rooms').onclick = ({ target }) => target.value && enter(target.value);

$('composer').onsubmit = (event) => {
  event.preventDefault();
  channel.trigger('client-message', { text: $('text').value });
  showMessage(me, $('text').value); // the server sends an event to everybody but its sender
  $('text').value = '';
};

function showMembers() {
  const members = [];
  channel.members.each(({ id, info }) => members.push({ ...info, id }));
  $('count').textContent = members.length;
  $('members').replaceChildren(...members.map(({ id, name, away, badge }) => {
    const item = element('li', '', away ? 'away' : '');
    item.append(avatar(id), element('span', id === me ? `${name} (you)` : name));
    if (badge) item.append(element('small', badge, 'badge'));
    if (away) item.append(element('small', 'away'));
    return item;
  }));
}

const names = new Map([...$('users').children].map(({ value, textContent }) => [value, textContent]));
const nameOf = (id) => names.get(id) ?? id;

function avatar(id) {
  const initials = nameOf(id).split(/\s+/).map((word) => word[0] ?? '').join('').slice(0, 2).toUpperCase();
  const node = element('span', initials, 'avatar');
  node.ariaHidden = 'true';
  node.style.setProperty('--hue', [...id].reduce((sum, letter) => sum * 31 + letter.codePointAt(0), 7) % 360);
  return node;
}

function showMessage(id, text) {
  const line = element('p', '', id === me ? 'message mine' : 'message');
  const bubble = element('span', '', 'bubble');
  const body = element('span', '', 'body');
  body.append(element('b', nameOf(id)), element('span', text));
  bubble.append(body);
  line.append(avatar(id), bubble);
  show(line);
}

const note = (text) => show(element('p', text, 'note'));

function show(line) {
  $('log').append(line);
  $('log').scrollTop = $('log').scrollHeight;
}
